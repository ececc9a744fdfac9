// Switches for the unit tests. They force paths that otherwise depend on the kernel or on a limit
// of the system. Compiled into every build (what is tested is what is shipped), and read on slow
// paths only.
#pragma once

#include <atomic>
#include <cstddef>

namespace greenlet::platform::for_tests {

struct Switches {
  // advise_guard() and advise_guards() fail, as on a kernel without MADV_GUARD_INSTALL.
  std::atomic<bool> no_guards_by_advice{false};
  // advise_guards() fails, as before Linux 6.14.
  std::atomic<bool> guard_one_by_one{false};
  // drop() of several ranges makes a system call for each, as before Linux 6.14.
  std::atomic<bool> drop_one_by_one{false};
  // mapping_limit() in place of vm.max_map_count; 0: the system's.
  std::atomic<std::size_t> mapping_limit{0};
  // map() refuses more than this, as if address space were short; 0: no such limit.
  std::atomic<std::size_t> largest_mapping{0};
  // address_space(); 0: the machine's.
  std::atomic<std::size_t> address_space{0};
};
inline constinit Switches switches;

}  // namespace greenlet::platform::for_tests
