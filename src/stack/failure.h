// Why no region could be had.
#pragma once

#include <cstdint>

namespace greenlet::stack {

// Core turns it into a MemoryError that names the limit.
enum class Failure : std::uint8_t {
  kNone,
  // No limit of the system that is known explains it: mmap failed, malloc failed, or stacks have
  // the half of all addresses that we let them have (kPartOfAddresses of batch.cpp).
  kUnexplained,
  kAddressSpaceLimit,  // RLIMIT_AS
  kData,               // RLIMIT_DATA
  kCommit,             // strict overcommit (vm.overcommit_memory=2)
  kNoMemory,           // commit() failed: a system where memory is promised before it is used
  kMappings,           // mprotect or mmap failed for want of mappings: vm.max_map_count
  kGuard,              // the guard could not be set for another reason
};

// The text for a MemoryError: which limit was hit and what to do about it.
const char* describe(Failure failure) noexcept;

}  // namespace greenlet::stack
