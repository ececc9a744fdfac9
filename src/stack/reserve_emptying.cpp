// The part of the reserve that gives back all that idle regions cost, page tables included.
#include <algorithm>
#include <array>
#include <mutex>

#include "stack/reserve.h"

namespace greenlet::stack {
namespace {

// The guard of the first region of a batch stays. mlockall() fills what is mapped with memory; in
// each mapping it ends at the first guard.
bool keeps_guard(std::size_t index) noexcept { return index == 0; }

// What lies between the region before an emptied one and the region behind it, as far as these are
// not emptied themselves: memory that nobody uses.
platform::Range emptied_around(Batch& batch, std::size_t index) noexcept {
  std::size_t first = index;
  std::size_t last = index;
  while (first != 0 && (batch.emptied >> (first - 1) & 1U) != 0) {
    --first;
  }
  while (last + 1 < batch.count && (batch.emptied >> (last + 1) & 1U) != 0) {
    ++last;
  }
  return {
      .begin = keeps_guard(first) ? batch.region(first).low : guard_of(batch.region(first)).begin,
      .end = last + 1 == batch.count ? batch.mapped().end : batch.region(last).high};
}

}  // namespace

bool Reserve::can_empty() noexcept {
  const std::lock_guard lock(mutex_);  // the first call sets guards, for a trial
  return platform::gives_back_page_tables();
}

bool Reserve::can_empty(const Region& region) noexcept {
  const std::lock_guard lock(mutex_);
  const Batch& batch = *region.batch;
  // A guard that costs mappings stays, and in locked memory advice makes no new one.
  return batch.guard_mappings == 0 && !batch.locked && platform::gives_back_page_tables();
}

void Reserve::empty(const Region* regions, std::size_t count) noexcept {
  const std::lock_guard lock(mutex_);
  std::array<platform::Range, platform::kMostAtOnce> ranges{};
  std::size_t guards = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Batch& batch = *regions[i].batch;
    batch.emptied |= batch.bit(regions[i]);
    if (!keeps_guard(batch.index(regions[i]))) {
      ranges[guards++] = guard_of(regions[i]);
    }
  }
  platform::remove_guards(ranges.data(), guards);
  std::size_t different = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Batch& batch = *regions[i].batch;
    const platform::Range range = emptied_around(batch, batch.index(regions[i]));
    const bool is_known =
        std::any_of(ranges.begin(), ranges.begin() + different,
                    [&](const platform::Range& each) { return each.begin == range.begin; });
    if (!is_known) {
      ranges[different++] = range;
    }
  }
  platform::drop(ranges.data(), different);
}

Failure Reserve::refill(const Region& region) noexcept {
  const std::lock_guard lock(mutex_);
  if (!keeps_guard(region.batch->index(region))) {
    if (const Failure failure = guard(region); failure != Failure::kNone) {
      return failure;
    }
  }
  region.batch->emptied &= ~region.batch->bit(region);
  return Failure::kNone;
}

}  // namespace greenlet::stack
