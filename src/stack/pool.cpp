// The slow half of a thread's pool: refilling it from the reserve, and giving back what it need not
// keep. What a hit needs is inline in pool.h.
#include "stack/pool.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "platform/fault.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "stack/layout.h"
#include "stack/overflow.h"
#include "stack/reserve.h"
#include "stack/trimmer.h"

namespace greenlet::stack {
namespace {

using platform::kPageSize;
using platform::page_of;

// How many regions a pool takes from the reserve at once, at most (kMostRefill), and how many it
// gives back at once (kFlush).
constexpr std::size_t kMostRefill = 64;
static_assert(kMostRefill <= 64);  // one bit for each in a word
static_assert(kMostRefill <= platform::kMostAtOnce);
constexpr std::size_t kFlush = 32;

// What a pooled region may hold in memory below and above the page of its boundary.
constexpr std::size_t kKeepBelow = std::size_t{128} << 10;
constexpr std::size_t kKeepAbove = std::size_t{32} << 10;
// How far beyond that Pool::check() looks.
constexpr std::size_t kLookBelow = std::size_t{64} << 10;
constexpr std::size_t kLookAbove = std::size_t{16} << 10;
// How many releases apart checks are: after a check that has found more pages than were known, and
// at most. Both numbers are odd, so that a regular pattern cannot hide from the checks for long.
constexpr std::uint32_t kShortInterval = 7;
constexpr std::uint32_t kLongestInterval = 61;

// kBudget: what all pools together may hold in memory. A pool draws kDrawnAtOnce from it at a time.
// In addition each pool may hold kFree, and at least one region, so that a thread with few
// greenlets never draws.
//
// A thread that waits for something else cannot give back what its greenlets have left behind, and
// a process may have thousands of threads. So the sum must be bounded.
constexpr std::size_t kBudget = std::size_t{2} << 20;
constexpr std::size_t kDrawnAtOnce = std::size_t{128} << 10;
constexpr std::size_t kFree = std::size_t{64} << 10;

constinit std::atomic<std::size_t> drawn_by_all{0};

// Draws kDrawnAtOnce from the budget; false if less is left. Then it writes nothing, so threads
// whose pools are full can share the cache line of drawn_by_all.
bool draw() noexcept {
  std::size_t now = drawn_by_all.load(std::memory_order_relaxed);
  do {
    if (now + kDrawnAtOnce > kBudget) {
      return false;
    }
  } while (!drawn_by_all.compare_exchange_weak(now, now + kDrawnAtOnce, std::memory_order_relaxed));
  return true;
}

struct Residency {
  std::size_t pages;  // pages in memory, of those that a pooled region may hold
  bool beyond;        // other pages are in memory, too
};

// Looks only at the pages around the boundary: stacks grow page by page, and looking at all of 8
// MiB takes several times as long.
Residency residency_of(const Region& region) noexcept {
  const std::size_t page = kPageSize;
  std::byte* const middle = page_of(region.boundary);
  const std::size_t keep_below = round_up(kKeepBelow, page);
  const std::size_t keep_above = page + round_up(kKeepAbove, page);
  std::byte* const begin = std::max(region.low, middle - keep_below - round_up(kLookBelow, page));
  std::byte* const end = std::min(region.high, middle + keep_above + round_up(kLookAbove, page));
  constexpr std::size_t kMostPages = (kKeepBelow + kLookBelow + kKeepAbove + kLookAbove) / 4096 + 1;
  std::array<unsigned char, kMostPages> states;
  const std::size_t pages = std::min(states.size(), static_cast<std::size_t>(end - begin) / page);
  if (!platform::query_residency(begin, pages, states.data())) {
    return {.pages = 1, .beyond = true};
  }
  const auto resident = [&](const std::byte* from, const std::byte* to) {
    std::size_t count = 0;
    for (std::size_t i = static_cast<std::size_t>(from - begin) / page;
         i < static_cast<std::size_t>(to - begin) / page; ++i) {
      count += states[i] & 1U;
    }
    return count;
  };
  std::byte* const low = std::max(begin, middle - keep_below);
  std::byte* const high = std::min(end, middle + keep_above);
  return {.pages = resident(low, high), .beyond = resident(begin, low) + resident(high, end) != 0};
}

// Drops the pages that a pooled region may not hold.
void cut_back(const Region& region, Trimmer& trimmer) noexcept {
  std::byte* const middle = page_of(region.boundary);
  trimmer.drop_all_but(region, middle - std::min<std::ptrdiff_t>(kKeepBelow, middle - region.low),
                       middle + kPageSize + kKeepAbove);
}

// New regions, or used ones without memory, are about to be used.
bool commit(const Region* regions, std::size_t count) noexcept {
  std::array<const platform::StackMemory*, kMostRefill> stacks;
  for (std::size_t i = 0; i < count; ++i) {
    stacks[i] = &regions[i];
  }
  return platform::commit(stacks.data(), count);
}

// Takes up to `wish` regions from the reserve, ready to run on; returns how many. If not all could
// be had, `failure` says why.
std::size_t take_ready(std::size_t size, Region* regions, std::size_t wish,
                       Failure& failure) noexcept {
  if (reports_overflow()) {
    platform::ensure_signal_stack();
  }
  std::uint64_t unguarded;
  const std::size_t taken = reserve().take(size, regions, wish, unguarded, failure);
  std::size_t ready = 0;
  // In this order: then the two system calls find each page table where the caches have it.
  if (commit(regions, taken)) {
    ready = reserve().guard(regions, taken, unguarded, failure);
  } else {
    failure = Failure::kNoMemory;
  }
  if (ready != taken) {
    reserve().give_back(regions + ready, taken - ready);
  }
  return ready;
}

}  // namespace

Pool::~Pool() {
  give_back_oldest(count_);
  return_budget();
  if (registered_) {
    reserve().remove(*this);
  }
  std::free(entries_);
  platform::release_signal_stack();  // another pool of the thread may ask for it again
}

Region Pool::acquire_slowly(Failure& failure) noexcept {
  if (!registered_) {
    reserve().add(*this);
  }
  notice_raised_limit();
  adopt_size();
  std::size_t wish = std::max(std::min<std::size_t>(refill_, pool_bound()), std::size_t{1});
  if (!make_room(wish)) {
    wish = 1;
  }
  std::array<Region, kMostRefill> regions;
  const std::size_t ready = take_ready(size_, regions.data(), wish, failure);
  if (ready == 0) {
    refill_ = 1;
    return Region{};
  }
  const bool got_all = failure == Failure::kNone;
  failure = Failure::kNone;
  // A thread with few greenlets keeps few spare regions.
  refill_ = got_all ? std::min<std::uint32_t>(refill_ * 2, kMostRefill) : 1;
  for (std::size_t i = ready; i-- > 1;) {
    // NOLINTNEXTLINE(clang-analyzer-security.ArrayBound): make_room() made room for `wish`
    entries_[count_++] = regions[i];
  }
  settled_ = count_;
  lowest_ = 0;
  count_in_use(1);
  return handed_out(regions[0]);
}

Region Pool::acquire(std::size_t size, Failure& failure) noexcept {
  if (!registered_) {
    reserve().add(*this);
  }
  Region region;
  if (take_ready(round_up(size, kPageSize), &region, 1, failure) == 0) {
    return Region{};
  }
  count_in_use(1);
  return handed_out(region);
}

void Pool::release_slowly(const Region& region) noexcept {
  if (!registered_) {
    reserve().add(*this);
  }
  adopt_size();
  count_in_use(static_cast<std::size_t>(-1));
  const std::size_t bound = room_for(count_ + 1);
  if (count_ > 0 && count_ >= bound) {
    // The oldest, because their memory is the coldest, and because the batches of one burst then
    // become free together.
    give_back_oldest(
        std::min(count_, count_ - bound + std::max<std::size_t>(1, std::min(kFlush, bound / 2))));
  }
  if (bound == 0 || region.batch->wanted != size_ || !make_room(1)) {
    reserve().give_back(&region, 1);
    return;
  }
  if (until_check_ > 1) {
    --until_check_;
  } else {
    check(region);
  }
  entries_[count_++] = region;
}

// How many entries the pool may have, if it wants `entries`.
std::size_t Pool::room_for(std::size_t entries) noexcept {
  const std::size_t bound = pool_bound();
  while (allowed() < std::min(entries, bound) && draw()) {
    drawn_ += kDrawnAtOnce;
  }
  room_ = std::min(capacity_, allowed());
  return std::min(bound, allowed());
}

std::size_t Pool::allowed() const noexcept {
  const std::size_t each = pages_ * kPageSize;
  return std::max(std::size_t{1}, (kFree + drawn_) / each);
}

// Returns what the pool does not need for its entries.
void Pool::return_budget() noexcept {
  const std::size_t all = count_ * pages_ * kPageSize;
  const std::size_t kept = std::min(drawn_, round_up(all - std::min(all, kFree), kDrawnAtOnce));
  drawn_by_all.fetch_sub(drawn_ - kept, std::memory_order_relaxed);
  drawn_ = kept;
  room_ = std::min(capacity_, allowed());
}

// Finds out how much memory a released region holds, and gives back what is too much. This costs a
// system call (a microsecond or more, several times what all else about a short greenlet costs). So
// it checks only a sample of the releases: as long as checks find nothing new, the distance to the
// next one doubles, up to kLongestInterval releases. The pool takes what a check finds to hold for
// all its entries, and keeps as many as the budget then allows: pages_ rises at once and falls
// slowly.
//
// If a check finds too much, others may hold too much as well. Then it trims every entry that was
// released since the last time, and checks the next release, too. So at most kLongestInterval such
// regions in a row stay unnoticed. If they are not needed again, decay() gives back their memory.
void Pool::check(const Region& region) noexcept {
  const Residency found = residency_of(region);
  if (found.beyond) {
    Trimmer trimmer;
    for (std::size_t i = settled_; i < count_; ++i) {
      cut_back(entries_[i], trimmer);
    }
    cut_back(region, trimmer);
    lowest_ = std::min(lowest_, settled_);
    settled_ = count_;
  }
  if (found.beyond) {
    check_interval_ = 1;
  } else if (found.pages > pages_) {
    check_interval_ = kShortInterval;
  } else {
    check_interval_ = std::min(check_interval_ * 2, kLongestInterval);
  }
  until_check_ = check_interval_;
  pages_ = std::max(
      {std::size_t{1}, found.pages, pages_ - (pages_ - std::min(pages_, found.pages) + 7) / 8});
  room_ = std::min(capacity_, allowed());
}

void Pool::decay() noexcept {
  notice_raised_limit();
  if (chosen_ == kUnknown) {
    give_back_oldest(count_);
  }
  // The entries at the bottom were not needed.
  const std::size_t unneeded = std::min(lowest_, settled_);
  const std::size_t kept = std::min(unneeded, std::max(std::size_t{1}, kFree / kPageSize));
  give_back_oldest(unneeded - kept);
  {
    Trimmer trimmer;
    for (std::size_t i = 0; i < kept; ++i) {
      trimmer.drop_all_but(entries_[i], entries_[i].boundary, entries_[i].boundary);
    }
  }
  return_budget();
  // An unnoticed entry that holds too much is either not needed until the next call, or used and
  // released again.
  settled_ = lowest_ = count_;
}

void Pool::trim(Trimmer& trimmer) noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    trimmer.drop_all(entries_[i]);
  }
  trimmer.flush();
  give_back_oldest(count_);
  return_budget();
}

// Some programs raise RLIMIT_STACK, and from then on recurse more deeply. Asking for the limit at
// each start would cost too much. So until the next decay() a greenlet may still get a region of
// the old size from the pool. The size never falls: in the child of a fork, the thread that forked
// is the main thread, on the stack that it had before.
void Pool::notice_raised_limit() noexcept {
  if (chosen_ == 0 && platform::is_main_thread() && thread_bytes_ < thread_stack_size()) {
    thread_bytes_ = 0;
    chosen_ = kUnknown;
  }
}

// Follows a change of the default size: entries of the old size go back to the reserve.
void Pool::adopt_size() noexcept {
  const std::size_t chosen = chosen_size();
  if (chosen_ == chosen) {
    return;
  }
  if (chosen == 0 && thread_bytes_ == 0) {
    thread_bytes_ = std::max(thread_stack_size(), kUsualSize);
  }
  give_back_oldest(count_);
  chosen_ = chosen;
  size_ = chosen != 0 ? chosen : thread_bytes_;
  const Layout layout = Layout::in_row(size_);
  bytes_ = layout.bytes - layout.low;
}

bool Pool::make_room(std::size_t entries) noexcept {
  if (count_ + entries <= capacity_) {
    return true;
  }
  const std::size_t capacity = std::max(capacity_ * 2, std::max(count_ + entries, kMostRefill));
  void* grown = std::realloc(entries_, capacity * sizeof(Region));
  if (grown == nullptr) {
    return false;
  }
  entries_ = static_cast<Region*>(grown);
  capacity_ = capacity;
  room_ = std::min(capacity_, allowed());
  return true;
}

void Pool::give_back_oldest(std::size_t regions) noexcept {
  if (regions == 0) {
    return;
  }
  reserve().give_back(entries_, regions);
  count_ -= regions;
  std::memmove(entries_, entries_ + regions, count_ * sizeof(Region));
  settled_ -= std::min(settled_, regions);
  lowest_ -= std::min(lowest_, regions);
}

}  // namespace greenlet::stack
