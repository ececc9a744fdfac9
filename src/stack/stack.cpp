// The process-wide settings, the texts of failures, and what is asked of all regions. Where things
// lie is layout.h, what the kernel does memory.h; the reserve has the regions that no pool has.
#include "stack.h"

#include "layout.h"
#include "reserve.h"
#include "testing.h"

namespace greenlet::stack {

const char* describe(Failure failure) noexcept {
  switch (failure) {
    case Failure::kNone:
      return "no failure";
    case Failure::kAddressSpace:
      return "cannot reserve a stack for the greenlet: address space is used up; see the limit "
             "RLIMIT_AS (ulimit -v) and the sysctl vm.overcommit_memory, or set a smaller default "
             "stack size";
    case Failure::kMappings:
      return "cannot guard a stack for the greenlet: the process has as many memory mappings as "
             "it may; raise the sysctl vm.max_map_count (Linux 6.13 and newer need no mapping for "
             "a guard)";
    case Failure::kGuard:
      return "cannot guard a stack for the greenlet: the kernel refused both MADV_GUARD_INSTALL "
             "and mprotect";
  }
  return "unknown failure";
}

bool set_default_size(std::size_t bytes) noexcept {
  if (bytes < kMinSize || bytes > kMaxSize) {
    return false;
  }
  detail::settings.default_size.store(round_up(bytes, page_size()), std::memory_order_relaxed);
  return true;
}

void set_pool_bound(std::size_t regions) noexcept {
  detail::settings.pool_bound.store(regions, std::memory_order_relaxed);
}

Region region_at(const void* address) noexcept {
  return detail::reserve().region_at(static_cast<const std::byte*>(address));
}

Statistics statistics() noexcept { return detail::reserve().statistics(); }

std::size_t resident_bytes() noexcept { return detail::reserve().resident_bytes(); }

void trim_reserve() noexcept { detail::reserve().trim(); }

}  // namespace greenlet::stack

namespace greenlet::stack::for_tests {

std::size_t guard_bytes() noexcept { return Layout::compact(kMinSize).low; }
std::size_t regions_per_batch() noexcept { return kBatchRegions; }

}  // namespace greenlet::stack::for_tests
