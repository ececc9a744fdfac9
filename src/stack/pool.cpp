// The slow half of a thread's pool: refilling it from the reserve, and giving back what it need not
// keep. What a hit needs is inline in stack.h.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "layout.h"
#include "memory.h"
#include "reserve.h"
#include "stack.h"

namespace greenlet::stack {
namespace {

// A pool takes up to this many regions from the reserve at once, and gives so many back.
constexpr std::size_t kMostRefill = 64;
static_assert(kMostRefill <= 64);  // a bit each in a word
constexpr std::size_t kFlush = 32;

// Trimming (see Pool::check): what a pooled region may hold on either side of the boundary, how far
// below that a check looks, and how many releases apart checks may become.
constexpr std::size_t kKeepBelow = std::size_t{32} << 10;
constexpr std::size_t kKeepAbove = std::size_t{16} << 10;
constexpr std::size_t kLookBelow = std::size_t{256} << 10;
constexpr std::uint32_t kLongestInterval = 64;

struct Deep {
  bool below;
  bool above;
};

// Whether pages beyond what a pooled region may hold are in memory. Looks at the data area and at
// the kLookBelow next bytes of the C stack only: stacks grow page by page, and looking at
// all of 8 MiB takes five times as long.
Deep look(const Region& region) noexcept {
  const std::size_t page = page_size();
  std::byte* middle = page_of(region.boundary);
  const std::size_t keep_below = round_up(kKeepBelow, page);
  const std::size_t keep_above = round_up(kKeepAbove, page);
  std::byte* begin = std::max(region.low, middle - keep_below - round_up(kLookBelow, page));
  constexpr std::size_t kMostPages =
      (kKeepBelow + kLookBelow + kDataBytes + 2 * kGuardBytes) / 4096;
  std::array<unsigned char, kMostPages> states;
  const std::size_t pages =
      std::min(states.size(), static_cast<std::size_t>(region.high - begin) / page);
  if (mincore(begin, pages * page, states.data()) != 0) {
    return Deep{true, true};
  }
  const auto resident = [&](std::size_t from, std::size_t to) {
    return std::any_of(states.data() + from, states.data() + std::max(from, std::min(to, pages)),
                       [](unsigned char state) { return (state & 1U) != 0; });
  };
  const std::size_t middle_index = static_cast<std::size_t>(middle - begin) / page;
  return Deep{middle_index > keep_below / page && resident(0, middle_index - keep_below / page),
              resident(middle_index + 1 + keep_above / page, pages)};
}

void trim(const Region& region, Deep deep) noexcept {
  std::byte* middle = page_of(region.boundary);
  if (deep.below) {
    drop_pages(region.low, std::max(region.low, middle - round_up(kKeepBelow, page_size())));
  }
  if (deep.above) {
    drop_pages(middle + page_size() + round_up(kKeepAbove, page_size()), region.high);
  }
}

}  // namespace

Pool::~Pool() {
  if (count_ != 0) {
    detail::reserve().give_back(entries_, count_);
  }
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
  trimmed_ = count_;
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
  const std::size_t bound = pool_bound();
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

// Gives back what deep calls touched. Finding out costs a system call (a microsecond, several times
// what all else about a short greenlet costs), so releases are sampled: while checks find nothing,
// the next is twice as far away, up to kLongestInterval releases. When one finds a deep
// region, others are likely: every entry not known to be trimmed is swept, and the next release is
// checked again. So at most kLongestInterval deep regions in a row go unnoticed.
void Pool::check(const Region& region) noexcept {
  const Deep deep = look(region);
  if (deep.below || deep.above) {
    trim(region, deep);
    for (; trimmed_ < count_; ++trimmed_) {
      trim(entries_[trimmed_], Deep{true, true});
    }
    check_interval_ = 1;
  } else if (check_interval_ < kLongestInterval) {
    check_interval_ *= 2;
  }
  if (trimmed_ == count_) {
    ++trimmed_;  // `region`, about to be pushed
  }
  until_check_ = check_interval_;
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
  return true;
}

void Pool::give_back_oldest(std::size_t regions) noexcept {
  if (regions == 0) {
    return;
  }
  detail::reserve().give_back(entries_, regions);
  count_ -= regions;
  std::memmove(entries_, entries_ + regions, count_ * sizeof(Region));
  trimmed_ -= std::min(trimmed_, regions);
}

}  // namespace greenlet::stack
