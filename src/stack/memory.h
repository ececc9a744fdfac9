// What the kernel does for stacks: mapping, advice about pages, and its limits. Nothing here knows
// how regions are kept.
#pragma once

#include <cstddef>

#include "stack/stack.h"
#include "stack/trimmer.h"

namespace greenlet::stack {

// Pages of [begin, end) that are backed by memory; both page-aligned.
std::size_t resident_pages(std::byte* begin, std::byte* end) noexcept;

// Gives the memory of [begin, end) back; both page-aligned. The pages read as zeros then.
void drop_pages(std::byte* begin, std::byte* end) noexcept;
// The same for many ranges: by one system call, where the kernel can do that. No more than
// kMostAtOnce.
void drop_pages(const Trimmer::Range* ranges, std::size_t count) noexcept;

// Has the kernel back the page that each of these touches first: one system call in place of a page
// fault each. A wish only: the first time that it isn't granted is the last that it is asked. No
// more than kMostAtOnce.
void populate(const Region* regions, std::size_t count) noexcept;

// Maps address space for stacks, readable and writable. It uses no memory, not even if the program
// has all that it maps locked in memory (mlockall() with MCL_FUTURE); `locks` says whether it has.
// Null if that cannot be.
std::byte* map_bytes(std::size_t bytes, bool& locks) noexcept;
// False where the process has as many mappings as it may: unmapping from the middle of one makes
// two of it.
bool unmap_bytes(std::byte* begin, std::size_t bytes) noexcept;

// What a program wants that calls mlockall(), as far as it makes sense for stacks: pages stay in
// memory once they have been touched. Does nothing if RLIMIT_MEMLOCK holds for the process, for the
// kernel counts all the address space against it. Guards are to be set before.
void lock_on_fault(std::byte* begin, std::size_t bytes) noexcept;

// How much the limits of the process, and of the machine, leave for stacks.
struct Room {
  static constexpr std::size_t kNoLimit = ~std::size_t{0};
  std::size_t left = kNoLimit;     // bytes; some are left to the rest of the program
  Failure limit = Failure::kNone;  // the limit that is so near
};
// `carefully`: looks again at the settings of the machine, which hardly ever change.
Room find_room(bool carefully) noexcept;

// Bytes that a process can address on this machine: 128 TiB on most, 512 GiB on some.
std::size_t address_space() noexcept;

// Bytes of the calling thread's own stack, in whole MiB: what recursion may use up in it.
std::size_t thread_stack_bytes() noexcept;
// True for the thread whose stack grows as far as RLIMIT_STACK says at the moment.
bool is_main_thread() noexcept;

// The kernel's advice on ranges (see process_madvise) takes up to this many at once here.
inline constexpr std::size_t kMostAtOnce = 64;

// A range that becomes a guard: touching it is a fault.
struct GuardRange {
  std::byte* begin;
  std::size_t bytes;
};
// Advises the kernel to install many guards by one system call. False: it may have installed some.
bool install_guards(const GuardRange* guards, std::size_t count) noexcept;
// The same for one.
bool install_guard(const GuardRange& guard) noexcept;
// The same by mprotect(), for kernels that know no such advice. It costs two mappings. Sets errno.
bool protect_guard(const GuardRange& guard) noexcept;

// How many mappings the process may have, less some for others (as with kHeadroomBytes).
std::size_t mapping_limit() noexcept;
// Whether the process has about as many mappings as it may. Slow where it has many.
bool mappings_exhausted() noexcept;

}  // namespace greenlet::stack
