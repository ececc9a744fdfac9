// Where things lie in a region and in a mapping of many regions. Only arithmetic.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "stack/stack.h"

namespace greenlet::stack {

// A frame larger than the guard can step over it unseen, so: more than the one page that a thread
// has. Each page costs the kernel an entry in a page table.
inline constexpr std::size_t kGuardBytes = std::size_t{16} << 10;
// Of the data area; small stacks, which there are when address space is short, have an eighth of
// what they have themselves. CPython makes more room for Python frames where that is too little.
inline constexpr std::size_t kDataBytes = std::size_t{256} << 10;

// Regions are mapped by the batch, of up to so many: one bit each in a word.
inline constexpr std::size_t kBatchRegions = 64;

// See Layout::in_row(): how far each boundary lies behind the last one's place in the reach of its
// page table, and how much C stack the first has there. All that a batch needs must fit.
inline constexpr std::size_t kDriftPages = 5;
inline constexpr std::size_t kNearPages = 100;
static_assert(kNearPages + kBatchRegions * kDriftPages + 2 + (kDataBytes + kGuardBytes) / 4096 <=
              512);

inline const auto kPageSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
inline std::size_t page_size() noexcept { return kPageSize; }

inline std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

inline std::byte* page_of(std::byte* address) noexcept {
  return address - (reinterpret_cast<std::uintptr_t>(address) & (page_size() - 1));
}

// Bytes whose pages have their entries in one page table, on most machines.
inline std::size_t page_table_reach() noexcept { return page_size() / sizeof(void*) * page_size(); }

// Where things lie in a region of one size, as offsets from its first byte.
struct Layout {
  static std::size_t data_bytes(std::size_t size) noexcept {
    return round_up(std::min(size / 8, kDataBytes), page_size());
  }

  std::size_t low;
  std::size_t boundary;
  std::size_t bytes;
  std::size_t lead;  // in the mapping, ahead of the first region

  // As little address space as the size takes. The page that holds the boundary comes on top of it.
  //
  // An odd number of pages in all: the pages that every region touches first (those around the
  // boundary) then spread over all sets of the TLB, which a multiple of a large power of two would
  // put into a few.
  static Layout compact(std::size_t size) noexcept {
    const std::size_t page = page_size();
    Layout layout{};
    layout.low = round_up(kGuardBytes, page);
    layout.boundary = layout.low + size + page / 4096 * kStackShareOfBoundaryPage;
    const std::size_t pages = (layout.low + size + data_bytes(size)) / page;
    layout.bytes = (pages | 1) * page;
    return layout;
  }

  // For regions in a row, in a mapping that begins where the reach of a page table does:
  //
  //   reaches     |.........................|.........................|.......
  //   regions          [guard| C stack ....... boundary| data][guard| C stack
  //
  // A page table takes the kernel about as long as a page. A region needs one for its boundary and
  // one for its guard; so the boundary of one region and the guard of the next share theirs. For
  // that a C stack gets what a region lacks to a multiple of the reach, if that is not much, and a
  // few pages more, for the sake of the TLB.
  static Layout in_row(std::size_t size) noexcept {
    Layout layout = compact(size);
    const std::size_t bytes =
        round_up(layout.bytes, page_table_reach()) + kDriftPages * page_size();
    if (bytes - layout.bytes <= layout.bytes / 4) {
      layout.boundary += bytes - layout.bytes;
      layout.bytes = bytes;
      layout.lead = data_bytes(size) + (1 + kNearPages) * page_size();
    }
    return layout;
  }

  bool is_row() const noexcept { return lead != 0; }
  std::size_t mapped_bytes(std::size_t regions) const noexcept {
    return round_up(lead + regions * bytes, is_row() ? page_table_reach() : page_size());
  }
};

}  // namespace greenlet::stack
