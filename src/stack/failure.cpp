// The texts of failures.
#include "stack/failure.h"

namespace greenlet::stack {

const char* describe(Failure failure) noexcept {
  switch (failure) {
    case Failure::kNone:
      return "no failure";
    case Failure::kUnexplained:
      return "cannot reserve a stack for the greenlet: address space is used up; see the limit "
             "RLIMIT_AS (ulimit -v) and the sysctl vm.overcommit_memory, or set a smaller default "
             "stack size";
    case Failure::kAddressSpaceLimit:
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
    case Failure::kNoMemory:
      return "cannot get memory for the stack of the greenlet: the system promises no more (on "
             "Windows, see the size of the paging file)";
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

}  // namespace greenlet::stack
