// The process-wide settings, the texts of failures, and what is asked of all regions. Where things
// lie is layout.h, what the kernel does memory.h; the reserve has the regions that no pool has.
#include "stack.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include "layout.h"
#include "memory.h"
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
    case Failure::kSpaceLimit:
      return "cannot reserve a stack for the greenlet: the limit RLIMIT_AS (ulimit -v) is used up; "
             "raise it, or set a smaller default stack size";
    case Failure::kData:
      return "cannot reserve a stack for the greenlet: the limit RLIMIT_DATA (ulimit -d, systemd's "
             "LimitDATA) is used up; raise it, or set a smaller default stack size";
    case Failure::kCommit:
      return "cannot reserve a stack for the greenlet: the machine does not overcommit memory "
             "(the sysctl vm.overcommit_memory is 2), and what may be committed (CommitLimit in "
             "/proc/meminfo) is used up; set a smaller default stack size, or raise the sysctl "
             "vm.overcommit_ratio";
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

std::size_t default_size() noexcept {
  const std::size_t chosen = chosen_size();
  return chosen != 0 ? chosen : std::max(thread_stack_bytes(), kUsualSize);
}

bool set_default_size(std::size_t bytes) noexcept {
  if (bytes < kMinSize || bytes > kMaxSize) {
    return false;
  }
  detail::settings.chosen_size.store(round_up(bytes, page_size()), std::memory_order_relaxed);
  return true;
}

void unset_default_size() noexcept {
  detail::settings.chosen_size.store(0, std::memory_order_relaxed);
}

bool parse_size(const char* text, std::size_t& bytes) noexcept {
  const std::string_view all(text);
  const char* const end = all.data() + all.size();
  std::size_t number = 0;
  const auto [rest, error] = std::from_chars(text, end, number);
  unsigned shift = 0;
  if (const std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
      suffix == "K" || suffix == "k") {
    shift = 10;
  } else if (suffix == "M" || suffix == "m") {
    shift = 20;
  } else if (suffix == "G" || suffix == "g") {
    shift = 30;
  } else if (!suffix.empty()) {
    return false;
  }
  if (error != std::errc{} || number > (~std::size_t{0} >> shift)) {
    return false;
  }
  bytes = number << shift;
  return true;
}

void set_pool_bound(std::size_t regions) noexcept {
  detail::settings.pool_bound.store(regions, std::memory_order_relaxed);
}

Region region_at(const void* address) noexcept {
  return detail::reserve().region_at(static_cast<const std::byte*>(address));
}

void empty_pools(const void* family) noexcept { detail::reserve().empty_pools(family); }

Statistics statistics() noexcept { return detail::reserve().statistics(); }

std::size_t resident_bytes() noexcept { return detail::reserve().resident_bytes(); }

void trim_reserve() noexcept { detail::reserve().trim(); }

}  // namespace greenlet::stack

namespace greenlet::stack::for_tests {

std::size_t guard_bytes() noexcept { return Layout::compact(kMinSize).low; }
std::size_t regions_per_batch() noexcept { return kBatchRegions; }

}  // namespace greenlet::stack::for_tests
