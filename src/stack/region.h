// A region: the piece of address space on which one greenlet runs.
#pragma once

#include <cstddef>

#include "platform/memory.h"

namespace greenlet::stack {

// Bytes of the page that holds the boundary which belong to the C stack (for pages of 4 KiB, in
// proportion for larger ones): the least. The rest is the beginning of the data area. A greenlet
// whose C frames and Python frames fit in their shares touches this one page in all.
//
// The boundaries of neighbouring regions lie at different places in their pages, a line of the
// cache apart. All switches touch what lies next to a boundary. At one place in all pages, that
// would fall into a few sets of the caches.
inline constexpr std::size_t kStackShareOfBoundaryPage = 2112;
inline constexpr std::size_t kBoundaryPlaces = 16;
inline constexpr std::size_t kBoundaryStep = 64;

struct Batch;  // the mapping that a region was cut from (batch.h)

// A plain handle. Its holder owns the region until it is given back to a Pool.
struct Region : platform::StackMemory {
  Batch* batch = nullptr;

  explicit operator bool() const noexcept { return low != nullptr; }
  std::size_t stack_bytes() const noexcept { return static_cast<std::size_t>(boundary - low); }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(high - low); }
  std::size_t data_bytes() const noexcept { return static_cast<std::size_t>(high - boundary); }
};

}  // namespace greenlet::stack
