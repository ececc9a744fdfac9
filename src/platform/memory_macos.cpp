// Memory for stacks on macOS. Also readable.h. Built, not run: see docs/internals/macos.md.
#include "platform/memory.h"

#include <mach/mach.h>
#include <mach/vm_statistics.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "platform/readable.h"
#include "platform/testing.h"

namespace greenlet::platform {
namespace {

// What vmmap and crash reports call the memory: that of stacks.
constexpr int kTag = VM_MAKE_TAG(VM_MEMORY_STACK);

void* map_at(void* address, std::size_t bytes, int flags) noexcept {
  return mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | flags, kTag, 0);
}

// As map(), at any page.
std::byte* map_anywhere(std::size_t bytes) noexcept {
  const std::size_t largest = for_tests::switches.largest_mapping.load();
  if (largest != 0 && bytes > largest) {
    errno = ENOMEM;
    return nullptr;
  }
  void* const address = map_at(nullptr, bytes, 0);
  return address == MAP_FAILED ? nullptr : static_cast<std::byte*>(address);
}

}  // namespace

const std::size_t kPageSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

void* allocate_aligned(std::size_t alignment, std::size_t bytes) noexcept {
  void* memory = nullptr;
  return posix_memalign(&memory, std::max(alignment, sizeof(void*)), bytes) == 0 ? memory : nullptr;
  // cppcheck-suppress memleak  ; the caller owns it
}

// --- address space ------------------------------------------------------------------------------

// mlockall() does nothing on macOS, so no program locks what it maps.
std::byte* map(std::size_t bytes, std::size_t alignment, bool& locks) noexcept {
  locks = false;
  std::byte* const mapping = map_anywhere(bytes + (alignment > kPageSize ? alignment : 0));
  if (mapping == nullptr || alignment <= kPageSize) {
    return mapping;
  }
  const std::size_t before =
      (alignment - reinterpret_cast<std::uintptr_t>(mapping) % alignment) % alignment;
  if (before != 0) {
    munmap(mapping, before);
  }
  munmap(mapping + before + bytes, alignment - before);
  // cppcheck-suppress deallocret  ; a part of it is unmapped
  return mapping + before;
}

bool unmap(const Range& range) noexcept { return munmap(range.begin, range.bytes()) == 0; }

void lock_on_fault(const Range&) noexcept {}

// --- guards -------------------------------------------------------------------------------------

// There is no such advice. A guard by protection is cheap: macOS does not limit how many parts the
// memory of a process has.
bool advise_guard(const Range&) noexcept { return false; }
bool advise_guards(const Range*, std::size_t) noexcept { return false; }
void remove_guards(const Range*, std::size_t) noexcept {}
bool guards_cost_mappings() noexcept { return false; }
bool gives_back_page_tables() noexcept { return false; }

Protected protect_guard(const Range& guard) noexcept {
  return mprotect(guard.begin, guard.bytes(), PROT_NONE) == 0 ? Protected::kYes : Protected::kNo;
}

// --- pages --------------------------------------------------------------------------------------

bool commit(const StackMemory* const*, std::size_t) noexcept { return true; }

// No advice of macOS makes pages read as zeros. A new mapping in the place of the old one does.
void drop(const Range& range) noexcept {
  if (range.begin < range.end) {
    // cppcheck-suppress leakReturnValNotUsed  ; it is at the same address
    map_at(range.begin, range.bytes(), MAP_FIXED);
  }
}

void drop(const Range* ranges, std::size_t count) noexcept {
  std::for_each(ranges, ranges + count, [](const Range& range) { drop(range); });
}

bool query_residency(std::byte* begin, std::size_t pages, unsigned char* states) noexcept {
  static_assert(MINCORE_INCORE == 1);
  return mincore(begin, pages * kPageSize, reinterpret_cast<char*>(states)) == 0;
}

std::size_t resident_pages(const Range& range) noexcept {
  std::array<unsigned char, 4096> states;
  std::size_t resident = 0;
  for (std::byte* begin = range.begin; begin < range.end;) {
    const std::size_t pages =
        std::min(states.size(), static_cast<std::size_t>(range.end - begin) / kPageSize);
    if (query_residency(begin, pages, states.data())) {
      for (std::size_t i = 0; i < pages; ++i) {
        resident += states[i] & 1U;
      }
    }
    begin += pages * kPageSize;
  }
  return resident;
}

// --- readable.h ---------------------------------------------------------------------------------

bool is_readable(const void* address) noexcept {
  std::uint64_t word;
  return copy_readable(&word, address, sizeof(word));
}

bool copy_readable(void* to, const void* from, std::size_t bytes) noexcept {
  vm_size_t copied = 0;
  return vm_read_overwrite(mach_task_self(), reinterpret_cast<vm_address_t>(from), bytes,
                           reinterpret_cast<vm_address_t>(to), &copied) == KERN_SUCCESS &&
         copied == bytes;
}

}  // namespace greenlet::platform
