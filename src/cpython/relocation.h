// Moving the bytes of a suspended stack to another address: what is rebased.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::cpython {

// The bytes [begin, end) of a suspended stack have been copied to begin + delta. The last byte of
// the slice has no neighbour that something else could refer to, so a pointer to `end` counts as
// one into the slice: the end of a value stack, or an empty vector of arguments there.
struct Relocation {
  const std::byte* begin;
  const std::byte* end;
  std::ptrdiff_t delta;

  // Where `pointer` leads after the move. Pointers that lead elsewhere, and null, stay as they are.
  template <typename T>
  T* operator()(T* pointer) const noexcept {
    const auto* const at = reinterpret_cast<const std::byte*>(pointer);
    return at >= begin && at <= end ? reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(at) +
                                                           static_cast<std::uintptr_t>(delta))
                                    : pointer;
  }
};

}  // namespace greenlet::cpython
