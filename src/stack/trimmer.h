// Giving back memory of regions that nobody needs.
#pragma once

#include <array>
#include <cstddef>

#include "stack/stack.h"

namespace greenlet::stack {

// Gives pages of many regions back to the kernel, those of several regions by one system call.
// Whoever uses it must own the regions, and nobody may run on them, until flush() has been called.
// The pages read as zeros then.
class Trimmer {
 public:
  enum class Counts : bool { kNo, kYes };

  // With Counts::kYes it finds out how much memory that is: a system call for each range.
  explicit Trimmer(Counts counts = Counts::kNo) noexcept : counts_(counts) {}
  Trimmer(const Trimmer&) = delete;
  Trimmer& operator=(const Trimmer&) = delete;
  ~Trimmer() { flush(); }

  // Gives back all of the region but the pages that [begin, end) reaches into; also the page of
  // `begin` if the two are equal and in the middle of one. At once, or at the latest in flush().
  void keep(const Region& region, const std::byte* begin, const std::byte* end) noexcept;
  // Gives back all of it.
  void keep_nothing(const Region& region) noexcept { add(region.low, region.high); }

  // Regions that can be added before it calls the kernel.
  std::size_t room() const noexcept { return (kRanges - count_) / 2; }
  void flush() noexcept;

  // Bytes that were backed by memory, if it counts.
  std::size_t given_back() const noexcept { return given_back_; }

  struct Range {
    std::byte* begin;
    std::byte* end;
  };

 private:
  static constexpr std::size_t kRanges = 64;

  void add(std::byte* begin, std::byte* end) noexcept;

  std::array<Range, kRanges> ranges_;
  std::size_t count_ = 0;
  std::size_t given_back_ = 0;
  Counts counts_;
};

}  // namespace greenlet::stack
