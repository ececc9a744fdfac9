// Memory for stacks on Windows. Also readable.h.
//
//   low                                          boundary         high
//   | reserved ............ | guard page | in use | C stack | data area |
//                                        ^ limit
//
// Windows gives memory to address space in two steps: it reserves, then it commits. A stack commits
// its pages as it grows: the page below those in use has PAGE_GUARD, and when the stack touches
// that page, the kernel takes it for the stack and makes the next one the guard. The kernel does so
// only between the bounds that the thread's block (TEB) has at this moment, and writes the new
// limit there. The switch (context/switch_x86_64_windows.S) keeps the limit with the stack.
//
// So the lowest page of a stack is never committed, and what is not committed faults: guards need
// no call. A page that has been committed stays so until its stack goes back to the reserve.
#include "platform/memory.h"

#include <malloc.h>
#include <windows.h>
// After windows.h, which it needs.
#include <psapi.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "platform/memory_windows.h"
#include "platform/readable.h"
#include "platform/testing.h"

namespace greenlet::platform {
namespace {

// Pages of C stack below the page of the boundary that are committed from the start. A greenlet
// that goes deeper takes a fault for each page.
constexpr std::size_t kFirstPages = 1;

std::uintptr_t number(const void* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address);
}

// Pages in a row that are in the same state.
struct Run {
  explicit Run(const void* address) noexcept { VirtualQuery(address, &about_, sizeof(about_)); }

  std::byte* end() const noexcept {
    return static_cast<std::byte*>(about_.BaseAddress) + about_.RegionSize;
  }
  void* mapping() const noexcept { return about_.AllocationBase; }
  bool is_committed() const noexcept { return about_.State == MEM_COMMIT; }
  bool is_guard() const noexcept { return (about_.Protect & PAGE_GUARD) != 0; }

 private:
  MEMORY_BASIC_INFORMATION about_{};
};

// Commits a new stack's first pages, with a guard page below them.
bool commit_one(const StackMemory& stack) noexcept {
  std::byte* const lowest =
      std::max(page_of(stack.boundary) - kFirstPages * kPageSize, stack.low + 2 * kPageSize);
  std::byte* const guard = lowest - kPageSize;
  DWORD old;
  if (VirtualAlloc(guard, static_cast<std::size_t>(stack.high - guard), MEM_COMMIT,
                   PAGE_READWRITE) == nullptr ||
      VirtualProtect(guard, kPageSize, PAGE_READWRITE | PAGE_GUARD, &old) == 0) {
    return false;
  }
  set_stack_limit(stack.boundary, lowest);
  return true;
}

// Whether the range, whose first page is not committed, is all of a stack and its data area.
bool is_whole_region(const Range& range) noexcept {
  const Run after(range.end);
  return !after.is_committed() || after.mapping() != Run(range.begin).mapping();
}

}  // namespace

const std::size_t kPageSize = [] {
  SYSTEM_INFO system;
  GetSystemInfo(&system);
  return std::size_t{system.dwPageSize};
}();

void* allocate_aligned(std::size_t alignment, std::size_t bytes) noexcept {
  return _aligned_malloc(bytes, alignment);
}

// --- address space ------------------------------------------------------------------------------

std::byte* map(std::size_t bytes, std::size_t alignment, bool& locks) noexcept {
  locks = false;
  const std::size_t largest = for_tests::switches.largest_mapping.load();
  constexpr std::size_t kGranularity = std::size_t{64} << 10;  // on every Windows
  const std::size_t more = alignment > kGranularity ? alignment : 0;
  void* const address = largest == 0 || bytes <= largest
                            ? VirtualAlloc(nullptr, bytes + more, MEM_RESERVE, PAGE_READWRITE)
                            : nullptr;
  if (address == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  // The ends that are too much stay reserved: nothing but a whole reservation can be released.
  return static_cast<std::byte*>(address) + (alignment - number(address) % alignment) % alignment;
}

bool unmap(const Range& range) noexcept {
  return VirtualFree(Run(range.begin).mapping(), 0, MEM_RELEASE) != 0;
}

void lock_on_fault(const Range&) noexcept {}

// --- guards -------------------------------------------------------------------------------------

bool advise_guard(const Range&) noexcept { return true; }  // it is not committed
bool advise_guards(const Range*, std::size_t) noexcept { return true; }
void remove_guards(const Range*, std::size_t) noexcept {}
bool guards_cost_mappings() noexcept { return false; }
bool gives_back_page_tables() noexcept { return false; }
Protected protect_guard(const Range&) noexcept { return Protected::kYes; }

// --- pages --------------------------------------------------------------------------------------

bool commit(const StackMemory* const* stacks, std::size_t count) noexcept {
  return std::all_of(stacks, stacks + count,
                     [](const StackMemory* stack) { return commit_one(*stack); });
}

// The page of a stack's boundary has the limit of the stack. So it is kept, as are all pages in
// their state, unless the whole region is dropped: then it needs another commit().
void drop(const Range& range) noexcept {
  if (range.begin >= range.end) {
    return;
  }
  Run run(range.begin);
  if (!run.is_committed() && is_whole_region(range)) {
    VirtualFree(range.begin, range.bytes(), MEM_DECOMMIT);
    return;
  }
  for (std::byte* begin = range.begin; begin < range.end; begin = run.end(), run = Run(begin)) {
    if (run.is_committed() && !run.is_guard()) {
      std::byte* const end = std::min(run.end(), range.end);
      VirtualAlloc(begin, static_cast<std::size_t>(end - begin), MEM_RESET, PAGE_READWRITE);
      // Pages that are reset leave the working set when they are unlocked, though none was locked.
      VirtualUnlock(begin, static_cast<std::size_t>(end - begin));
    }
    if (run.end() >= range.end) {
      return;
    }
  }
}

void drop(const Range* ranges, std::size_t count) noexcept {
  std::for_each(ranges, ranges + count, [](const Range& range) { drop(range); });
}

bool query_residency(std::byte* begin, std::size_t pages, unsigned char* states) noexcept {
  std::array<PSAPI_WORKING_SET_EX_INFORMATION, 128> asked;
  for (std::size_t done = 0; done < pages;) {
    const std::size_t count = std::min(asked.size(), pages - done);
    for (std::size_t i = 0; i < count; ++i) {
      asked[i] = {.VirtualAddress = begin + (done + i) * kPageSize, .VirtualAttributes = {}};
    }
    if (K32QueryWorkingSetEx(GetCurrentProcess(), asked.data(),
                             static_cast<DWORD>(count * sizeof(asked[0]))) == 0) {
      return false;
    }
    for (std::size_t i = 0; i < count; ++i) {
      states[done + i] = static_cast<unsigned char>(asked[i].VirtualAttributes.Valid);
    }
    done += count;
  }
  return true;
}

std::size_t resident_pages(const Range& range) noexcept {
  std::array<unsigned char, 512> states;
  std::size_t resident = 0;
  for (std::byte* begin = range.begin; begin < range.end;) {
    const Run run(begin);
    std::byte* const end = std::min(run.end(), range.end);
    if (run.is_committed()) {
      for (; begin < end; begin += states.size() * kPageSize) {
        const std::size_t pages =
            std::min(states.size(), static_cast<std::size_t>(end - begin) / kPageSize);
        if (query_residency(begin, pages, states.data())) {
          resident += static_cast<std::size_t>(std::count(states.data(), states.data() + pages, 1));
        }
      }
    }
    begin = end;
  }
  return resident;
}

// --- readable.h ---------------------------------------------------------------------------------

bool is_readable(const void* address) noexcept {
  std::uint64_t word;
  return copy_readable(&word, address, sizeof(word));
}

bool copy_readable(void* to, const void* from, std::size_t bytes) noexcept {
  SIZE_T copied = 0;
  return ReadProcessMemory(GetCurrentProcess(), from, to, bytes, &copied) != 0 && copied == bytes;
}

}  // namespace greenlet::platform
