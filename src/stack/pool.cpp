// The slow half of a thread's pool: refilling it from the reserve, and giving back what it need not
// keep. What a hit needs is inline in stack.h.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "layout.h"
#include "memory.h"
#include "reserve.h"
#include "stack.h"
#include "trimmer.h"

namespace greenlet::stack {
namespace {

// A pool takes up to this many regions from the reserve at once, and gives so many back.
constexpr std::size_t kMostRefill = 64;
static_assert(kMostRefill <= 64);  // a bit each in a word
constexpr std::size_t kFlush = 32;

// Checks (see Pool::check): what a pooled region may hold on either side of its page, how far
// beyond that a check looks, and how many releases apart checks are: after one has found more than
// was known, and at most. Odd numbers, so that a regular pattern cannot hide from them for long.
constexpr std::size_t kKeepBelow = std::size_t{128} << 10;
constexpr std::size_t kKeepAbove = std::size_t{32} << 10;
constexpr std::size_t kLookBelow = std::size_t{64} << 10;
constexpr std::size_t kLookAbove = std::size_t{16} << 10;
constexpr std::uint32_t kShortInterval = 7;
constexpr std::uint32_t kLongestInterval = 61;

// What all pools may hold in memory, how much of that a pool draws at once, and what it may hold
// besides, so that a thread with few greenlets need not ask: so much, and at least one region.
//
// A thread that waits for something else cannot give back what its greenlets have left behind, and
// a process may have thousands of threads. So it is the sum that must be bounded.
constexpr std::size_t kBudget = std::size_t{2} << 20;
constexpr std::size_t kDrawnAtOnce = std::size_t{128} << 10;
constexpr std::size_t kFree = std::size_t{64} << 10;

constinit std::atomic<std::size_t> drawn_by_all{0};

// Written only if there is something to be had: threads whose pools are full share it unchanged.
bool draw() noexcept {
  std::size_t now = drawn_by_all.load(std::memory_order_relaxed);
  do {
    if (now + kDrawnAtOnce > kBudget) {
      return false;
    }
  } while (!drawn_by_all.compare_exchange_weak(now, now + kDrawnAtOnce, std::memory_order_relaxed));
  return true;
}

struct Look {
  std::size_t pages;  // in memory, as far as a pooled region may hold them
  bool beyond;        // others are, too
};

// Looks at the pages around the boundary only: stacks grow page by page, and looking at all of
// 8 MiB takes several times as long.
Look look(const Region& region) noexcept {
  const std::size_t page = page_size();
  std::byte* const middle = page_of(region.boundary);
  const std::size_t keep_below = round_up(kKeepBelow, page);
  const std::size_t keep_above = page + round_up(kKeepAbove, page);
  std::byte* const begin = std::max(region.low, middle - keep_below - round_up(kLookBelow, page));
  std::byte* const end = std::min(region.high, middle + keep_above + round_up(kLookAbove, page));
  constexpr std::size_t kMostPages = (kKeepBelow + kLookBelow + kKeepAbove + kLookAbove) / 4096 + 1;
  std::array<unsigned char, kMostPages> states;
  const std::size_t pages = std::min(states.size(), static_cast<std::size_t>(end - begin) / page);
  if (mincore(begin, pages * page, states.data()) != 0) {
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

// Gives back what a pooled region may not hold.
void cut_back(const Region& region, Trimmer& trimmer) noexcept {
  std::byte* const middle = page_of(region.boundary);
  trimmer.keep(region, middle - std::min<std::ptrdiff_t>(kKeepBelow, middle - region.low),
               middle + page_size() + kKeepAbove);
}

}  // namespace

Pool::~Pool() {
  give_back_oldest(count_);
  return_budget();
  if (registered_) {
    detail::reserve().remove(*this);
  }
  std::free(entries_);
}

Region Pool::acquire_slowly(Failure& failure) noexcept {
  if (!registered_) {
    detail::reserve().add(*this);
  }
  look_at_thread();
  adopt_size();
  std::size_t wish = std::max(std::min<std::size_t>(refill_, pool_bound()), std::size_t{1});
  if (!make_room(wish)) {
    wish = 1;
  }
  std::array<Region, kMostRefill> regions;
  std::uint64_t unguarded;
  const std::size_t taken = detail::reserve().take(size_, regions.data(), wish, unguarded, failure);
  // In this order: then the two system calls find each page table where the caches have it.
  populate(regions.data(), taken);
  const std::size_t ready = detail::reserve().guard(regions.data(), taken, unguarded, failure);
  if (ready != taken) {
    detail::reserve().give_back(regions.data() + ready, taken - ready);
  }
  if (ready == 0) {
    refill_ = 1;
    return Region{};
  }
  failure = Failure::kNone;  // though some may have been refused
  // A thread with few greenlets keeps few spare regions.
  refill_ = ready == taken ? std::min<std::uint32_t>(refill_ * 2, kMostRefill) : 1;
  for (std::size_t i = ready; i-- > 1;) {
    // NOLINTNEXTLINE(clang-analyzer-security.ArrayBound): there is room for `wish`, no less
    entries_[count_++] = regions[i];
  }
  settled_ = count_;
  lowest_ = 0;
  count_in_use(1);
  return regions[0];
}

Region Pool::acquire(std::size_t size, Failure& failure) noexcept {
  if (!registered_) {
    detail::reserve().add(*this);
  }
  Region region;
  std::uint64_t unguarded;
  size = round_up(size, page_size());
  if (detail::reserve().take(size, &region, 1, unguarded, failure) == 0) {
    return Region{};
  }
  if (detail::reserve().guard(&region, 1, unguarded, failure) == 0) {
    detail::reserve().give_back(&region, 1);
    return Region{};
  }
  count_in_use(1);
  return region;
}

void Pool::release_slowly(const Region& region) noexcept {
  if (!registered_) {
    detail::reserve().add(*this);
  }
  adopt_size();
  count_in_use(static_cast<std::size_t>(-1));
  const std::size_t bound = room_for(count_ + 1);
  if (count_ > 0 && count_ >= bound) {
    // The oldest: their memory is the coldest, and all batches of one burst empty together.
    give_back_oldest(
        std::min(count_, count_ - bound + std::max<std::size_t>(1, std::min(kFlush, bound / 2))));
  }
  if (bound == 0 || region.batch->wanted != size_ || !make_room(1)) {
    detail::reserve().give_back(&region, 1);
    return;
  }
  if (until_check_ > 1) {
    --until_check_;
  } else {
    check(region);
  }
  entries_[count_++] = region;
}

// How many entries the pool may have, if it would like to have so many.
std::size_t Pool::room_for(std::size_t entries) noexcept {
  const std::size_t bound = pool_bound();
  while (allowed() < std::min(entries, bound) && draw()) {
    drawn_ += kDrawnAtOnce;
  }
  room_ = std::min(capacity_, allowed());
  return std::min(bound, allowed());
}

std::size_t Pool::allowed() const noexcept {
  const std::size_t each = pages_ * page_size();
  return std::max(std::size_t{1}, (kFree + drawn_) / each);
}

// As far as it is not needed for what is in the pool.
void Pool::return_budget() noexcept {
  const std::size_t all = count_ * pages_ * page_size();
  const std::size_t kept = std::min(drawn_, round_up(all - std::min(all, kFree), kDrawnAtOnce));
  drawn_by_all.fetch_sub(drawn_ - kept, std::memory_order_relaxed);
  drawn_ = kept;
  room_ = std::min(capacity_, allowed());
}

// Finds out how much memory a released region holds, and gives back what is too much. This costs a
// system call (a microsecond or more, several times what all else about a short greenlet costs), so
// releases are sampled: while checks find nothing new, the next is twice as far away, up to
// kLongestInterval releases. What they find is taken to hold for all, and decides how many the pool
// may keep: it rises at once and falls slowly.
//
// When one finds too much, others may hold too much as well: then every entry is trimmed that was
// released since the last time, and the next release is checked again. So at most kLongestInterval
// such regions in a row go unnoticed; what is not needed again, lap() gives back.
void Pool::check(const Region& region) noexcept {
  const Look found = look(region);
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

void Pool::lap() noexcept {
  look_at_thread();
  if (chosen_ == kUnknown) {
    give_back_oldest(count_);
  }
  // Those at the bottom were not needed.
  const std::size_t unneeded = std::min(lowest_, settled_);
  const std::size_t kept = std::min(unneeded, std::max(std::size_t{1}, kFree / page_size()));
  give_back_oldest(unneeded - kept);
  {
    Trimmer trimmer;
    for (std::size_t i = 0; i < kept; ++i) {
      trimmer.keep(entries_[i], entries_[i].boundary, entries_[i].boundary);
    }
  }
  return_budget();
  // Those that hold too much, unnoticed, are not needed in the next lap, or are released again.
  settled_ = lowest_ = count_;
}

void Pool::trim(Trimmer& trimmer) noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    trimmer.keep_nothing(entries_[i]);
  }
  trimmer.flush();
  give_back_oldest(count_);
  return_budget();
}

// Programs raise RLIMIT_STACK, and from then on recurse more deeply. To ask at each start would
// cost too much, so until the next lap a greenlet may still get what is in the pool. (Never less:
// in the child of a fork the thread that forked is the main thread, on the stack that it had.)
void Pool::look_at_thread() noexcept {
  if (chosen_ == 0 && is_main_thread() && thread_bytes_ < thread_stack_bytes()) {
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
    thread_bytes_ = std::max(thread_stack_bytes(), kUsualSize);
  }
  give_back_oldest(count_);
  chosen_ = chosen;
  size_ = chosen != 0 ? chosen : thread_bytes_;
  const Layout layout = Layout::in_row(size_);
  stack_bytes_ = layout.boundary - layout.low;
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
  detail::reserve().give_back(entries_, regions);
  count_ -= regions;
  std::memmove(entries_, entries_ + regions, count_ * sizeof(Region));
  settled_ -= std::min(settled_, regions);
  lowest_ -= std::min(lowest_, regions);
}

}  // namespace greenlet::stack
