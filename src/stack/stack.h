// Stack regions: what the rooms above use. Nothing here knows Python; who runs on a region and when
// it may be given back is core's business.
//
//   region.h    what a region is            layout.h    where things lie in it
//   pool.h      the regions of one thread   reserve.h   the regions that no pool has
//   settings.h  default size, pool bound    batch.h     the mappings that regions are cut from
//   failure.h   why there is none           trimmer.h   gives back the memory of regions
//   overflow.h  says that a stack is full
#pragma once

#include <cstddef>

#include "stack/failure.h"   // IWYU pragma: export
#include "stack/overflow.h"  // IWYU pragma: export
#include "stack/pool.h"      // IWYU pragma: export
#include "stack/region.h"    // IWYU pragma: export
#include "stack/settings.h"  // IWYU pragma: export

namespace greenlet::stack {

// The region on whose C stack `address` lies; empty if on none. Takes the reserve's lock and goes
// through all batches.
Region region_at(const void* address) noexcept;

struct Statistics {
  std::size_t reserved;  // regions that are mapped
  std::size_t in_use;    // handed out by a pool's acquire() and not yet released
  std::size_t pooled;    // reserved and not in use: in threads' pools and in the reserve
};
// Adds up what the threads count: it reads no more than a few words for each.
Statistics statistics() noexcept;

// Bytes of all regions that are backed by memory; slow, as it asks about every page. About right
// while other threads map and unmap; zero if there is no memory to find out.
std::size_t resident_bytes() noexcept;

// Unmaps what no pool has and nobody uses, as far as whole mappings are free.
void trim_reserve() noexcept;

}  // namespace greenlet::stack
