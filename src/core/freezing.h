// Freezing: the stack of an idle greenlet moves to the heap, and comes back when the greenlet goes on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/greenlet.h"

namespace greenlet::core {

// The bytes of a frozen stack, from its stack pointer to the end of its Python frames. Behind this
// header, in one piece of raw memory.
struct alignas(std::max_align_t) FrozenStack {
  std::size_t bytes;

  std::byte* begin() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

// Freezes suspended greenlets of the calling thread. What leads into a frozen stack leads to its
// frozen bytes (cpython/relocation.h). So the collector, gr_frame and tools see its frames as always.
//
// No method reaches a safepoint: none runs Python code, detaches, or waits for the interpreter. So
// no other thread sees a stack that is on its way. (Exception: a frame object, or the frame of a
// generator, on a free-threaded build. There a stack with one is not frozen.)
class Freezer {
 public:
  // Freezes a suspended greenlet. False if it stays as it is, for any reason: its stack is large,
  // others have addresses of it, or there is no memory.
  bool freeze(Greenlet& greenlet) noexcept;

  // Brings the stack of a frozen greenlet back to its addresses. Allocates nothing.
  static void thaw(Greenlet& greenlet) noexcept;
  // The run of a greenlet is over, and its stack is left.
  static void forget(Greenlet& greenlet) noexcept {
    if (greenlet.keeps_frozen_) [[unlikely]] {
      release(greenlet);
    }
  }

  // For tests: each greenlet is frozen as soon as it is left, and its stack is overwritten.
  enum class TestMode : std::uint8_t { kOff, kOverwrites };
  static TestMode test_mode() noexcept;

 private:
  static bool may_freeze(const Greenlet& greenlet) noexcept;
  static void release(Greenlet& greenlet) noexcept;
};

}  // namespace greenlet::core
