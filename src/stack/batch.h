// A batch: one mapping, cut into regions. How batches are planned, mapped and unmapped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "platform/memory.h"
#include "stack/failure.h"
#include "stack/layout.h"
#include "stack/region.h"

namespace greenlet::stack {

struct SizeClass;

struct Batch {
  // Set once. Every holder of a region of the batch may read these.
  std::byte* base;
  Layout layout;
  std::size_t wanted;  // the size that it was mapped for; its regions may be smaller
  std::size_t count;
  bool fallback;  // smaller than wanted, or alone: made where address space was short
  SizeClass* size_class;

  // The reserve's mutex protects these, the links too.
  std::uint64_t free;          // regions in the reserve, a bit each
  std::uint64_t guarded;       // regions whose guard is set; set when first handed out
  std::uint64_t emptied;       // of those, regions that are empty: see Reserve::empty()
  std::size_t guard_mappings;  // mappings that its guards have added to the process
  bool locked;                 // the program locks its memory: see Reserve::lock_in_memory()
  bool available;              // has a free region, and is in its size class's list of those
  Batch* previous;
  Batch* next;
  Batch* previous_available;
  Batch* next_available;

  // Regions that a pool has handed out. Atomic; in debug builds only (see expect_in_use()).
  std::uint64_t in_use;

  // True if all its regions are free.
  bool is_unused() const noexcept { return free == all(); }
  std::uint64_t all() const noexcept { return ~std::uint64_t{0} >> (kBatchRegions - count); }
  std::byte* mapping() const noexcept { return base - layout.lead; }
  std::size_t mapped_bytes() const noexcept { return layout.mapped_bytes(count); }
  platform::Range mapped() const noexcept { return {mapping(), mapping() + mapped_bytes()}; }

  Region region(std::size_t index) noexcept {
    std::byte* begin = base + index * layout.bytes;
    return Region{{begin + layout.low, begin + layout.boundary_of(index), begin + layout.bytes},
                  this};
  }
  std::size_t index(const Region& region) const noexcept {
    return static_cast<std::size_t>(region.low - base) / layout.bytes;
  }
  std::uint64_t bit(const Region& region) const noexcept {
    return std::uint64_t{1} << index(region);
  }
  // Of the regions whose guards are set: no others have been used.
  std::size_t resident_bytes() const noexcept;
};

inline platform::Range guard_of(const Region& region) noexcept {
  return {region.low - region.batch->layout.low, region.low};
}

// The batches whose regions are for one size: threads whose own stacks differ in size ask for
// different sizes. The reserve's mutex protects it.
struct SizeClass {
  std::size_t size;
  std::size_t regions;  // of all its batches
  Batch* available;     // those with a free region
  SizeClass* next;
};

// Batches that have just been mapped, linked by `next`. The last of them is to be used first.
struct MappedBatches {
  Batch* first = nullptr;  // null if nothing could be mapped
  bool locks = false;      // the program locks what it maps
  Failure failure = Failure::kNone;
};

// Maps a batch, and a few more where there are many already. Batches grow with the number of
// regions that there are, so that a program with a handful of greenlets reserves little. Where a
// limit leaves little, they are small, and so are their regions. If no batch can be mapped, it
// tries a single region, and then ever smaller ones. `mapped`: the bytes of all batches so far.
MappedBatches map_batches(SizeClass& size_class, std::size_t mapped) noexcept;

}  // namespace greenlet::stack
