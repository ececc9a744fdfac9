// Giving back the memory of regions that nobody needs.
#pragma once

#include <array>
#include <cstddef>

#include "platform/memory.h"
#include "stack/region.h"

namespace greenlet::stack {

// Gives pages of many regions back to the kernel, with one system call for several regions. From
// drop_all_but() or drop_all() to flush() its user must own the regions, and nobody may run on
// them. Afterwards the pages read as zeros.
class Trimmer {
 public:
  enum class Counts : bool { kNo, kYes };

  // With Counts::kYes it counts how much memory it gives back: a system call for each range.
  explicit Trimmer(Counts counts = Counts::kNo) noexcept : counts_(counts) {}
  Trimmer(const Trimmer&) = delete;
  Trimmer& operator=(const Trimmer&) = delete;
  ~Trimmer() { flush(); }

  // Gives back all pages of the region, except those that [begin, end) reaches into. If the two are
  // equal, and inside a page, it keeps that page. It may call the kernel at once, or in flush().
  void drop_all_but(const Region& region, const std::byte* begin, const std::byte* end) noexcept;
  // Gives back all pages of the region.
  void drop_all(const Region& region) noexcept { add(region.low, region.high); }

  // How many regions can be added before it calls the kernel.
  std::size_t room() const noexcept { return (kRanges - count_) / 2; }
  void flush() noexcept;

  // Bytes given back that were backed by memory; zero without Counts::kYes.
  std::size_t given_back() const noexcept { return given_back_; }

 private:
  static constexpr std::size_t kRanges = platform::kMostAtOnce;

  void add(std::byte* begin, std::byte* end) noexcept;

  std::array<platform::Range, kRanges> ranges_;
  std::size_t count_ = 0;
  std::size_t given_back_ = 0;
  Counts counts_;
};

}  // namespace greenlet::stack
