// Switches for the unit tests, beside those of platform/testing.h. They force paths that otherwise
// depend on the kernel or on a limit of the system. Compiled into every build (what is tested is
// what is shipped), and read on slow paths only.
#pragma once

#include <atomic>
#include <cstddef>

namespace greenlet::stack::for_tests {

struct Switches {
  // Setting a guard fails, and no limit explains why.
  std::atomic<bool> fail_guards{false};
  // All that stacks may have, as if a limit left no more; 0: what the limits leave.
  std::atomic<std::size_t> room{0};
};
inline constinit Switches switches;

// How regions are laid out, for expectations: bytes of guard below `low`, and regions per mapping.
std::size_t guard_bytes() noexcept;
std::size_t regions_per_batch() noexcept;

}  // namespace greenlet::stack::for_tests
