// Where things lie in a region and in a mapping of many regions. Only arithmetic.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "platform/memory.h"
#include "stack/region.h"

namespace greenlet::stack {

// Bytes of the guard. A C frame that is larger than the guard can step over it without a fault. So
// the guard is larger than the one of a thread's stack, which has one page. It is not larger still,
// because each of its pages costs the kernel an entry in a page table.
inline constexpr std::size_t kGuardBytes = std::size_t{16} << 10;
// Bytes of the data area. Small stacks, which exist where address space is short, have an eighth of
// their own size. CPython allocates more room for Python frames where that is too little.
inline constexpr std::size_t kDataBytes = std::size_t{platform::kCommitsData ? 16 : 256} << 10;

// Regions are mapped in batches of at most this many: a batch keeps one bit for each in a word.
inline constexpr std::size_t kBatchRegions = 64;

// For Layout::in_row(). A region is kDriftPages longer than a multiple of a page table's reach. So
// its boundary lies kDriftPages further on in its page table than the boundary of the region before
// it does in its own. The first boundary of a batch has kNearPages of C stack before it in its page
// table. The last one must leave room in its page table for its data area and the next guard.
inline constexpr std::size_t kDriftPages = 5;
inline constexpr std::size_t kNearPages = 100;
static_assert(kNearPages + kBatchRegions * kDriftPages + 2 + (kDataBytes + kGuardBytes) / 4096 <=
              512);

inline std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

// Bytes whose pages have their entries in one page table, on most machines.
inline std::size_t page_table_reach() noexcept {
  return platform::kPageSize / sizeof(void*) * platform::kPageSize;
}

// Where things lie in a region of one size, as offsets from its first byte.
struct Layout {
  static std::size_t data_bytes(std::size_t size) noexcept {
    return round_up(std::min(size / 8, kDataBytes), platform::kPageSize);
  }

  std::size_t low;       // the guard lies below
  std::size_t boundary;  // the lowest: see boundary_of()
  std::size_t bytes;     // of the region
  std::size_t lead;      // bytes of the mapping ahead of the first region

  // As little address space as the size takes, and the page that holds the boundary.
  //
  // The number of pages is odd. So the pages that every region touches first (those around the
  // boundary) spread over all sets of the TLB. A multiple of a large power of two would put them
  // into a few sets.
  static Layout compact(std::size_t size) noexcept {
    const std::size_t page = platform::kPageSize;
    Layout layout{};
    layout.low = round_up(kGuardBytes, page);
    layout.boundary = layout.low + size + page / 4096 * kStackShareOfBoundaryPage;
    const std::size_t pages = (layout.low + size + data_bytes(size)) / page;
    layout.bytes = (pages | 1) * page;
    return layout;
  }

  // For regions in a row, in a mapping that begins where the reach of a page table begins:
  //
  //   reaches     |.........................|.........................|.......
  //   regions          [guard| C stack ....... boundary| data][guard| C stack
  //
  // Making a page table takes the kernel about as long as making a page. A region needs a table for
  // its boundary and one for its guard; so the boundary of one region and the guard of the next
  // share a table. For this the C stack is extended until the region fills a multiple of the reach,
  // if that is not much more, and by a few pages more, which spread over the sets of the TLB.
  //
  // Where addresses are short, regions are compact.
  static Layout in_row(std::size_t size) noexcept {
    Layout layout = compact(size);
    if (platform::kShortOfAddresses) {
      return layout;
    }
    const std::size_t bytes =
        round_up(layout.bytes, page_table_reach()) + kDriftPages * platform::kPageSize;
    if (bytes - layout.bytes <= layout.bytes / 4) {
      layout.boundary += bytes - layout.bytes;
      layout.bytes = bytes;
      layout.lead = data_bytes(size) + (1 + kNearPages) * platform::kPageSize;
    }
    return layout;
  }

  // Of the region with this index in its batch.
  std::size_t boundary_of(std::size_t index) const noexcept {
    return boundary + index % kBoundaryPlaces * (platform::kPageSize / 4096 * kBoundaryStep);
  }
  bool is_row() const noexcept { return lead != 0; }
  // Of the mapping.
  std::size_t alignment() const noexcept {
    return is_row() ? page_table_reach() : platform::kPageSize;
  }
  std::size_t mapped_bytes(std::size_t regions) const noexcept {
    return round_up(lead + regions * bytes, alignment());
  }
};

}  // namespace greenlet::stack
