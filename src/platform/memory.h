// Memory for stacks: what the rooms above may ask the operating system for. This is the contract;
// memory_linux.cpp implements it. What the limits of the process leave is in limits.h.
//
// A port to another system implements every function here. This is what its author has to decide:
//
//   must work        map(), unmap() of whole mappings, commit(), protect_guard(), kPageSize
//   may do nothing   drop() (memory then stays until unmap()), lock_on_fault(), advise_guard() and
//                    advise_guards() (return false), query_residency() (returns false: then the
//                    pool drops the pages of a stack whenever it looks)
//   constants        kUnmapsParts, kCommitsData, kMappingsOfAGuard, kMostAtOnce
//
// Pages of 16 or 64 KiB (arm64, ppc64le): nothing to do. All sizes are multiples of kPageSize.
//
// 32-bit address spaces: nothing to do here. kShortOfAddresses makes stacks small.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::platform {

// Bytes of a page: the unit of all ranges below. A power of two. Not inline: for an inline variable
// clang emits a guard, which is a function of libstdc++.
extern const std::size_t kPageSize;

// Whether a process has so few addresses that thousands of stacks of 8 MiB fill them.
inline constexpr bool kShortOfAddresses = sizeof(void*) < 8;

// The batched functions take up to this many ranges or stacks in one call.
inline constexpr std::size_t kMostAtOnce = 64;

// kUnmapsParts: unmap() can release a part of a mapping. If not, stack/ maps one batch at a time.
// kCommitsData: commit() takes memory, or a promise of it, for the whole data area of a stack. So
// stack/ makes that area small.
#if defined(_WIN32)
inline constexpr bool kUnmapsParts = false;
inline constexpr bool kCommitsData = true;
#else
inline constexpr bool kUnmapsParts = true;
inline constexpr bool kCommitsData = false;
#endif

// How many mappings protect_guard() adds to the process (see limits.h, mapping_limit()).
inline constexpr std::size_t kMappingsOfAGuard = 2;

// The beginning of the page that `address` lies in.
inline std::byte* page_of(std::byte* address) noexcept {
  return address - (reinterpret_cast<std::uintptr_t>(address) & (kPageSize - 1));
}

// Both ends at the beginning of a page.
struct Range {
  std::byte* begin;
  std::byte* end;

  std::size_t bytes() const noexcept { return static_cast<std::size_t>(end - begin); }
};

// The memory of a stack: [guard | C stack, grows down | boundary | data area, grows up].
struct StackMemory {
  std::byte* low = nullptr;       // lowest usable byte of the C stack, just above the guard
  std::byte* boundary = nullptr;  // 16-byte aligned, inside a page; C stack below, data area above
  std::byte* high = nullptr;      // end of the data area
};

// Aligned memory from the C library, which is never given back. Null if there is none.
void* allocate_aligned(std::size_t alignment, std::size_t bytes) noexcept;

// --- address space ------------------------------------------------------------------------------

// Maps `bytes` of address space for stacks: readable, writable, and zero. It uses no memory before
// it is touched, not even if the program has locked all that it maps (mlockall() with MCL_FUTURE);
// `locks` says whether the program has. The mapping begins at a multiple of `alignment`, which is a
// power of two and at least a page. Null if the system refuses; errno says why.
// Costs some six system calls, and a few more where the system does not align by chance.
// A port whose memory must be committed before use reserves here and commits in commit().
std::byte* map(std::size_t bytes, std::size_t alignment, bool& locks) noexcept;

// Unmaps the range, which is one mapping or, with kUnmapsParts, a part of one. False if the system
// refuses: on Linux where the process has as many mappings as it may, as unmapping from the middle
// of a mapping makes two of it. Then the range stays mapped, and unmap() may be tried later.
bool unmap(const Range& range) noexcept;

// For a program that has called mlockall(): locks each page of the range into memory when the page
// is touched for the first time. Pages that are never touched use no memory. Only a wish: does
// nothing if RLIMIT_MEMLOCK holds for the process, because the kernel counts the whole range
// against it. Set the guards before.
void lock_on_fault(const Range& range) noexcept;

// --- guards -------------------------------------------------------------------------------------
//
// A guard is a range that faults when it is touched. It stays until its range is unmapped, or until
// remove_guards().

// Makes the range a guard without a mapping of its own. False if the system cannot do so (the
// first call finds out) or refuses: use protect_guard() then. One system call. Not for two threads
// at once.
bool advise_guard(const Range& guard) noexcept;
// The same for several, in one system call: no more than kMostAtOnce. If it returns false, some may
// be guards already; set all of them one by one then.
bool advise_guards(const Range* guards, std::size_t count) noexcept;
// Makes ordinary memory of guards that advice has made; no more than kMostAtOnce. May fail, and do
// nothing: they then stay guards.
void remove_guards(const Range* guards, std::size_t count) noexcept;
// True once advise_guard() has found out that every guard needs protect_guard().
bool guards_cost_mappings() noexcept;

enum class Protected : std::uint8_t {
  kYes,
  kNoMappings,  // the process has as many mappings as it may
  kNo,          // refused for another reason
};
// Makes the range a guard by taking away all access. Works on every system, and adds
// kMappingsOfAGuard to the mappings of the process. One or two system calls.
Protected protect_guard(const Range& guard) noexcept;

// --- pages --------------------------------------------------------------------------------------

// Called when a pool takes stacks from the reserve, before code runs on them. The stacks are new,
// or their pages have been dropped; their guards may not be set yet. No more than kMostAtOnce.
// False: no memory, use none of them. On Linux memory needs no commitment, so this is only a wish,
// and always returns true: if there are two stacks or more, one system call backs the page of each
// boundary, in place of a page fault for each.
bool commit(const StackMemory* const* stacks, std::size_t count) noexcept;

// Gives the memory of the range back; the pages read as zeros when they are touched again. They may
// be touched without another commit(), so a port keeps the commitment. One system call.
void drop(const Range& range) noexcept;
// The same for several ranges, no more than kMostAtOnce: one system call if the kernel can do that,
// otherwise one for each.
void drop(const Range* ranges, std::size_t count) noexcept;

// Whether drop() of everything that one page table reaches gives back that page table, too: the
// system's own memory. The first calls find out by trying, which takes some system calls, and may
// be wrong (false) while other threads map memory.
bool gives_back_page_tables() noexcept;

// Sets the lowest bit of states[i] if the i-th page from `begin` is backed by memory, and clears it
// if not; the other bits mean nothing. False if that cannot be found out. One system call.
bool query_residency(std::byte* begin, std::size_t pages, unsigned char* states) noexcept;
// How many pages of the range are backed by memory; zero if that cannot be found out.
std::size_t resident_pages(const Range& range) noexcept;

}  // namespace greenlet::platform
