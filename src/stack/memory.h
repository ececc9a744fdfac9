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

// Maps address space for stacks, so that `headroom` bytes more could have been mapped; null if that
// cannot be.
std::byte* map_bytes(std::size_t bytes, std::size_t headroom) noexcept;

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

// How many mappings the process may have, less some for others (as with kHeadroomBytes).
std::size_t mapping_limit() noexcept;
// Whether the process has about as many mappings as it may. Slow where it has many.
bool mappings_exhausted() noexcept;

}  // namespace greenlet::stack
