// The regions that one thread keeps for reuse. What a hit needs is inline here; pool.cpp has the
// rest.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "stack/failure.h"
#include "stack/region.h"
#include "stack/release_check.h"
#include "stack/settings.h"

namespace greenlet::stack {

class Reserve;
class Trimmer;

// The regions that one thread keeps for reuse, last in first out. Only its thread touches it, with
// three exceptions: statistics() reads `in_use_` from any thread; the reserve's mutex protects the
// links; and empty_pools() takes the entries while no thread uses the pool. May be a thread_local,
// or a member of something that lives as long as the thread.
//
// All pools together hold no more than a budget of memory, and each may hold a little in any case.
// So where greenlets go deep, pools are small.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();  // gives everything back to the process-wide reserve

  // A region of the current default size (smaller where address space is short). An empty one if
  // none can be had; then `failure` says why.
  Region acquire(Failure& failure) noexcept;
  // The same for the given size.
  Region acquire(std::size_t size, Failure& failure) noexcept;
  // Takes back a region that nobody runs on any more; any pool may have handed it out. Gives the
  // pages that deep calls touched back to the kernel. Never fails; what the pool may not keep goes
  // back to the reserve. In debug builds a region that is not in use ends the process.
  void release(Region region) noexcept;

  // Call it about once a second, if anything happens. Of the regions that were not needed
  // since the last call, it gives some back to the reserve, and drops the memory of the others.
  void decay() noexcept;
  // Gives everything back to the reserve now. Adds the memory that this frees to the trimmer's
  // count.
  void trim(Trimmer& trimmer) noexcept;

  // Makes it one of the pools that empty_pools(owner_tag) empties. Call it before the first use.
  void join(const void* owner_tag) noexcept { owner_tag_ = owner_tag; }

 private:
  friend class Reserve;

  static Region handed_out(const Region& region) noexcept {
    if constexpr (kChecksReleases) {
      note_in_use(region);
    }
    return region;
  }
  Region acquire_slowly(Failure& failure) noexcept;
  void release_slowly(const Region& region) noexcept;
  void adopt_size() noexcept;
  void notice_raised_limit() noexcept;
  bool make_room(std::size_t entries) noexcept;
  void give_back_oldest(std::size_t regions) noexcept;
  std::size_t room_for(std::size_t entries) noexcept;
  std::size_t allowed() const noexcept;
  void return_budget() noexcept;
  void check(const Region& region) noexcept;
  void count_in_use(std::size_t change) noexcept {
    // Only the owner writes, so this needs no atomic addition.
    in_use_.store(in_use_.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }

  Region* entries_ = nullptr;  // [0, count_), the last one released on top
  std::size_t count_ = 0;
  std::size_t capacity_ = 0;
  std::size_t room_ = 0;   // entries that fit in and may be kept
  std::size_t drawn_ = 0;  // bytes drawn from the budget of all pools
  std::size_t pages_ = 1;  // pages that an entry holds in memory, according to samples
  // check() need not trim the entries [0, settled_). They have not been handed out since they came
  // from the reserve, since check() trimmed them, or since the last decay().
  std::size_t settled_ = 0;
  // The entries [0, min(lowest_, settled_)) have not been handed out since the last decay().
  std::size_t lowest_ = 0;
  static constexpr std::size_t kUnknown = ~std::size_t{0};
  std::size_t chosen_ = kUnknown;  // chosen_size() when size_ was found
  std::size_t size_ = 0;           // the size that the entries were asked for with
  std::size_t thread_bytes_ = 0;   // size of the thread's own stack; zero if not known yet
  std::size_t bytes_ = 0;          // of most regions of size_, and of a few others
  std::uint32_t until_check_ = 1;  // releases until the next is checked for deep pages
  std::uint32_t check_interval_ = 1;
  std::uint32_t refill_ = 1;  // how many regions to take from the reserve next time
  bool registered_ = false;
  const void* owner_tag_ = nullptr;  // see empty_pools()
  // Regions acquired minus regions released here. May wrap around; the sum of all pools is right.
  std::atomic<std::size_t> in_use_{0};
  Pool* previous_ = nullptr;
  Pool* next_ = nullptr;
};

inline Region Pool::acquire(Failure& failure) noexcept {
  if (count_ != 0 && chosen_ == chosen_size()) [[likely]] {
    failure = Failure::kNone;
    count_in_use(1);
    --count_;
    if (settled_ > count_) {
      settled_ = count_;
    }
    return handed_out(entries_[count_]);
  }
  return acquire_slowly(failure);
}

inline void Pool::release(Region region) noexcept {
  if constexpr (kChecksReleases) {
    expect_in_use(region);
  }
  if (count_ < room_ && count_ < pool_bound() && chosen_ == chosen_size() &&
      region.bytes() == bytes_ && until_check_ != 1) [[likely]] {
    --until_check_;
    count_in_use(static_cast<std::size_t>(-1));
    entries_[count_++] = region;
    return;
  }
  release_slowly(region);
}

// Gives back what the pools with this tag keep, whichever threads they belong to (see
// Pool::join()). During the call no thread may use any of these pools. For the moment when no
// region is left.
void empty_pools(const void* owner_tag) noexcept;

}  // namespace greenlet::stack
