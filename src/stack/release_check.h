// A check for debug builds: only regions that are in use may be released.
#pragma once

#include "stack/region.h"

namespace greenlet::stack {

#ifdef NDEBUG
inline constexpr bool kChecksReleases = false;
#else
inline constexpr bool kChecksReleases = true;
#endif

// A pool hands the region out.
void note_in_use(const Region& region) noexcept;
// A pool takes the region back. Ends the process with a sentence if no pool has handed it out.
void expect_in_use(const Region& region) noexcept;

}  // namespace greenlet::stack
