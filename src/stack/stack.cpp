// What the rooms above ask of the reserve.
#include "stack/stack.h"

#include "stack/layout.h"
#include "stack/reserve.h"
#include "stack/testing.h"

namespace greenlet::stack {

Region region_at(const void* address) noexcept {
  return reserve().region_at(static_cast<const std::byte*>(address));
}

void empty_pools(const void* owner_tag) noexcept { reserve().empty_pools(owner_tag); }

Statistics statistics() noexcept { return reserve().statistics(); }

std::size_t resident_bytes() noexcept { return reserve().resident_bytes(); }

void trim_reserve() noexcept { reserve().trim(); }

}  // namespace greenlet::stack

namespace greenlet::stack::for_tests {

std::size_t guard_bytes() noexcept { return Layout::compact(kMinSize).low; }
std::size_t regions_per_batch() noexcept { return kBatchRegions; }

}  // namespace greenlet::stack::for_tests
