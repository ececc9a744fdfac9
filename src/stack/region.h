// A region: the piece of address space that one greenlet runs on.
#pragma once

#include <cstddef>

namespace greenlet::stack {

// Bytes of the page that holds the boundary which belong to the C stack (for pages of 4 KiB, in
// proportion for larger ones). The rest is the beginning of the data area. A greenlet whose C
// frames and Python frames fit in their shares touches this one page in all.
inline constexpr std::size_t kStackShareOfBoundaryPage = 3072;

struct Batch;  // the mapping that a region was cut from (batch.h)

// A stack of its own: [guard | C stack, grows down | boundary | data area, grows up].
// A plain handle. Its holder owns the region until it is given back to a Pool.
struct Region {
  std::byte* low = nullptr;       // lowest usable byte of the C stack, just above the guard
  std::byte* boundary = nullptr;  // 16-byte aligned, inside a page; C stack below, data area above
  std::byte* high = nullptr;      // end of the data area
  Batch* batch = nullptr;

  explicit operator bool() const noexcept { return low != nullptr; }
  std::size_t stack_bytes() const noexcept { return static_cast<std::size_t>(boundary - low); }
  std::size_t data_bytes() const noexcept { return static_cast<std::size_t>(high - boundary); }
};

}  // namespace greenlet::stack
