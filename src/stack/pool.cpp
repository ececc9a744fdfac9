// The slow half of a thread's pool: refilling it from the reserve, and giving back what it need not
// keep. What a hit needs is inline in stack.h.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

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

// Checks (see Pool::check): what a deep region on top may keep on either side of its page, how far
// beyond that a check looks, and how many releases apart checks are: when they have found a deep
// one, and at most. Odd numbers, so that a regular pattern cannot hide from them for long.
constexpr std::size_t kKeepBelow = std::size_t{32} << 10;
constexpr std::size_t kKeepAbove = std::size_t{16} << 10;
constexpr std::size_t kLookBelow = std::size_t{256} << 10;
constexpr std::size_t kLookAbove = std::size_t{16} << 10;
constexpr std::uint32_t kShortInterval = 7;
constexpr std::uint32_t kLongestInterval = 61;

// What pools may keep in memory beyond a little each: the budget of all, how much of it a pool
// draws at once, and what it may keep without: so many bytes, and at least so many regions.
//
// A thread that waits for something else cannot give back what its greenlets left behind, and a
// process may have thousands of threads. So the sum must be bounded, not each pool.
constexpr std::size_t kBudget = std::size_t{2} << 20;
constexpr std::size_t kDrawnAtOnce = std::size_t{128} << 10;
constexpr std::size_t kLeastBytes = std::size_t{64} << 10;
constexpr std::size_t kLeastRegions = 2;

// So many regions on top may be deep ones: by the budget, or without.
constexpr std::size_t kMostDeep = 16;
constexpr std::size_t kDeepBytes = (kMostDeep - 1) * (kKeepBelow + kKeepAbove);

constinit std::atomic<std::size_t> drawn{0};  // of the budget, by all pools

// Written only if there is something to be had: threads whose pools are full do not share it.
bool draw(std::size_t bytes) noexcept {
  std::size_t now = drawn.load(std::memory_order_relaxed);
  do {
    if (now + bytes > kBudget) {
      return false;
    }
  } while (!drawn.compare_exchange_weak(now, now + bytes, std::memory_order_relaxed));
  return true;
}

void put_back(std::size_t bytes) noexcept { drawn.fetch_sub(bytes, std::memory_order_relaxed); }

std::size_t least() noexcept { return std::max(kLeastRegions, kLeastBytes / page_size()); }
std::size_t regions_drawn_at_once() noexcept {
  return std::max(std::size_t{1}, kDrawnAtOnce / page_size());
}

enum class Depth : std::uint8_t {
  kShallow,   // the page that holds the boundary is the only one in memory
  kDeep,      // others are
  kVeryDeep,  // and those are more than a region on top may keep
};

// Looks at the pages around the boundary only: stacks grow page by page, and looking at all of
// 8 MiB takes five times as long.
Depth look(const Region& region) noexcept {
  const std::size_t page = page_size();
  std::byte* const middle = page_of(region.boundary);
  const std::size_t keep_below = round_up(kKeepBelow, page);
  const std::size_t keep_above = round_up(kKeepAbove, page) + page;
  std::byte* const begin = std::max(region.low, middle - keep_below - round_up(kLookBelow, page));
  std::byte* const end = std::min(region.high, middle + keep_above + round_up(kLookAbove, page));
  constexpr std::size_t kMostPages =
      (kKeepBelow + kLookBelow + kKeepAbove + kLookAbove) / 4096 + 1;
  std::array<unsigned char, kMostPages> states;
  const std::size_t pages =
      std::min(states.size(), static_cast<std::size_t>(end - begin) / page);
  if (mincore(begin, pages * page, states.data()) != 0) {
    return Depth::kVeryDeep;
  }
  Depth depth = Depth::kShallow;
  for (std::size_t i = 0; i < pages; ++i) {
    std::byte* const at = begin + i * page;
    if ((states[i] & 1U) == 0 || at == middle) {
      continue;
    }
    if (at < middle - keep_below || at >= middle + keep_above) {
      return Depth::kVeryDeep;
    }
    depth = Depth::kDeep;
  }
  return depth;
}

void trim_to_one_page(const Region* regions, std::size_t count) noexcept {
  Trimmer trimmer;
  for (std::size_t i = 0; i < count; ++i) {
    trimmer.keep(regions[i], regions[i].boundary, regions[i].boundary);
  }
}

void trim_to_what_deep_ones_keep(Trimmer& trimmer, const Region& region) noexcept {
  std::byte* const middle = page_of(region.boundary);
  trimmer.keep(region, middle - std::min<std::ptrdiff_t>(kKeepBelow, middle - region.low),
               middle + page_size() + kKeepAbove);
}

}  // namespace

Pool::~Pool() {
  give_back_oldest(count_);
  has_deep_ = false;
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
    entries_[count_++] = regions[i];
  }
  settled_ = count_;
  lowest_ = 0;
  room_for(count_);
  count_in_use(1);
  return regions[0];
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

// How many of so many regions may be kept.
std::size_t Pool::room_for(std::size_t regions) noexcept {
  const std::size_t bound = pool_bound();
  const std::size_t wish = std::min(regions, bound);
  while (least() + drawn_ < wish && draw(regions_drawn_at_once() * page_size())) {
    drawn_ += regions_drawn_at_once();
  }
  room_ = std::min(capacity_, least() + drawn_);
  return std::min(bound, least() + drawn_);
}

// Gives back what deep calls touched. Finding out costs a system call (a microsecond, several times
// what all else about a short greenlet costs), so releases are sampled: while checks find nothing,
// the next is twice as far away, up to kLongestInterval releases. When one finds a deep region,
// others are likely: then, until a lap has gone by without one, each check has what was released
// since the one before trimmed, save the regions on top, by one system call. So at most
// kLongestInterval deep regions in a row go unnoticed, until the next lap at most.
void Pool::check(const Region& region) noexcept {
  const Depth depth = look(region);
  if (depth != Depth::kShallow) {
    has_deep_ = found_deep_ = true;
    check_interval_ = kShortInterval;
  } else {
    check_interval_ = std::min(check_interval_ * 2, kLongestInterval);
  }
  until_check_ = check_interval_;
  if (has_deep_) {
    settle();
  }
  if (depth == Depth::kVeryDeep) {
    Trimmer trimmer;
    for (std::size_t i = settled_; i < count_; ++i) {
      trim_to_what_deep_ones_keep(trimmer, entries_[i]);
    }
    trim_to_what_deep_ones_keep(trimmer, region);
  }
}

// Trims all that have been released lately, save those on top.
void Pool::settle() noexcept {
  const std::size_t on_top = keeps_deep_ones() ? kMostDeep : 1;
  const std::size_t below = count_ - std::min(count_, on_top);
  if (below > settled_) {
    trim_to_one_page(entries_ + settled_, below - settled_);
    lowest_ = std::min(lowest_, settled_);
    settled_ = below;
  }
}

bool Pool::keeps_deep_ones() noexcept {
  if (deep_budget_ == 0 && draw(kDeepBytes)) {
    deep_budget_ = kDeepBytes;
  }
  return deep_budget_ != 0;
}

void Pool::lap() noexcept {
  // Those at the bottom were not needed.
  const std::size_t unneeded = std::min(lowest_, settled_);
  const std::size_t kept = std::min(unneeded, least());
  give_back_oldest(unneeded - kept);
  if (has_deep_ && !found_deep_) {
    has_deep_ = false;
    trim_to_one_page(entries_, count_);
  } else {
    trim_to_one_page(entries_, kept);
    if (has_deep_) {
      settle();
    }
  }
  found_deep_ = false;
  return_budget();
  // If one of these is deep, it is not needed any more in the next lap, or it is released anew.
  settled_ = lowest_ = count_;
}

void Pool::trim(Trimmer& trimmer) noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    trimmer.keep_nothing(entries_[i]);
  }
  trimmer.flush();
  give_back_oldest(count_);
  has_deep_ = found_deep_ = false;
  return_budget();
}

// As far as it is not needed for what is in the pool.
void Pool::return_budget() noexcept {
  const std::size_t needed = count_ - std::min(count_, least());
  const std::size_t kept = round_up(needed, regions_drawn_at_once());
  if (kept < drawn_) {
    put_back((drawn_ - kept) * page_size());
    drawn_ = kept;
    room_ = std::min(capacity_, least() + drawn_);
  }
  if (!has_deep_ && deep_budget_ != 0) {
    put_back(std::exchange(deep_budget_, 0));
  }
}

// Follows a change of the default size: entries of the old size go back to the reserve.
void Pool::adopt_size() noexcept {
  const std::size_t size = default_size();
  if (size_ == size) {
    return;
  }
  give_back_oldest(count_);
  size_ = size;
  const Layout layout = Layout::in_row(size);
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
  room_ = std::min(capacity_, least() + drawn_);
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
