// Switches for the unit tests: they force the ways that depend on the kernel or on a system limit.
// Compiled into every build (what is tested is what is shipped) and read on slow paths only.
#pragma once

#include <atomic>
#include <cstddef>

namespace greenlet::stack::for_tests {

struct Switches {
  // Guards by mprotect, as on a kernel without MADV_GUARD_INSTALL.
  std::atomic<bool> force_mprotect{false};
  // Each guard by a system call of its own, as before Linux 6.14.
  std::atomic<bool> guard_one_by_one{false};
  // Pages of many regions are given back by a system call each, as before Linux 6.14.
  std::atomic<bool> drop_one_by_one{false};
  // Setting a guard fails for no reason that a limit explains.
  std::atomic<bool> fail_guards{false};
  // In place of vm.max_map_count, as far as our own mappings go; 0 is the system's.
  std::atomic<std::size_t> mapping_limit{0};
  // No single mapping larger than this, as if address space were short; 0 is no limit.
  std::atomic<std::size_t> largest_mapping{0};
  // All that stacks may have, as if a limit left no more; 0 is what the limits do leave.
  std::atomic<std::size_t> room{0};
  // All that a process can address; 0 is what the machine lets it.
  std::atomic<std::size_t> address_space{0};
};
inline constinit Switches switches;

// How regions are laid out, for expectations: bytes of guard below `low`, and regions per mapping.
std::size_t guard_bytes() noexcept;
std::size_t regions_per_batch() noexcept;

}  // namespace greenlet::stack::for_tests
