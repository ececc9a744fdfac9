// A bit in the batch says whether a region is in use.
#include "stack/release_check.h"

#include <cstdio>
#include <cstdlib>

#include "stack/batch.h"

namespace greenlet::stack {

// Not std::atomic, so that a batch can be copied. std::atomic_ref is not in every C++20 library.
void note_in_use(const Region& region) noexcept {
  __atomic_fetch_or(&region.batch->in_use, region.batch->bit(region), __ATOMIC_RELAXED);
}

void expect_in_use(const Region& region) noexcept {
  const bool is_in_use =
      region.batch != nullptr &&
      (__atomic_fetch_and(&region.batch->in_use, ~region.batch->bit(region), __ATOMIC_RELAXED) &
       region.batch->bit(region)) != 0;
  if (!is_in_use) {
    (void)std::fputs("greenlet: a stack region was released that is not in use\n", stderr);
    std::abort();
  }
}

}  // namespace greenlet::stack
