// Freezing: the stack of an idle greenlet moves to the heap, and comes back when the greenlet goes
// on. docs/internals/freezing.md explains it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/greenlet.h"
#include "platform/memory.h"
#include "stack/stack.h"

namespace greenlet::core {

// The bytes of a frozen stack, from its stack pointer to the end of its Python frames. They lie
// behind this header, in one piece of raw memory.
struct alignas(std::max_align_t) FrozenStack {
  std::size_t bytes;

  std::byte* begin() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

// Freezes suspended greenlets of the calling thread. What leads into a frozen stack leads to its
// frozen bytes (cpython/relocation.h). So the collector, gr_frame and tools see its frames as
// always. The stack's own memory goes back to the kernel, with its guard and its page table.
//
// No method reaches a safepoint: none runs Python code, detaches, or waits for the interpreter. So
// no other thread sees a stack that is on its way. (Exception: a frame object, or the frame of a
// generator, on a free-threaded build. There a stack with one is not frozen. If another thread has
// found one since, thaw() stops the world before it moves anything.)
class Freezer {
 public:
  enum class Result : std::uint8_t {
    kFrozen,
    kNotNow,   // a collection is under way, or there is no memory
    kRefused,  // not before the greenlet goes on, or another module is allowed
  };
  enum class When : bool { kIdle, kNow };

  // kIdle: the greenlets have been suspended for a while.
  explicit Freezer(When when) noexcept : when_(when) {}
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;
  ~Freezer() { flush(); }

  // Freezes a suspended greenlet. It may be thawed after flush().
  Result freeze(Greenlet& greenlet) noexcept;
  void flush() noexcept;
  bool has_frozen() const noexcept { return has_frozen_; }

  // Brings the stack of a frozen greenlet back to its addresses. Allocates nothing. False with a
  // MemoryError set if the system refuses the guard: then the greenlet stays frozen.
  static bool thaw(Greenlet& greenlet) noexcept;
  // Frees the bytes of a greenlet that has been thawed.
  static void release(Greenlet& greenlet) noexcept;

  // For tests: each greenlet is frozen as soon as it is left, and its stack is overwritten; with
  // kDrops its memory is given back, too.
  enum class TestMode : std::uint8_t { kOff, kOverwrites, kDrops };
  static TestMode test_mode() noexcept;

 private:
  static bool has_known_code_only(const Greenlet& greenlet, When when) noexcept;
  static bool may_freeze(const Greenlet& greenlet) noexcept;

  static constexpr std::size_t kMost = 32;  // as few as that, because they lie on the stack
  static_assert(kMost <= platform::kMostAtOnce);

  stack::Region regions_[kMost];  // to be emptied
  std::size_t count_ = 0;
  When when_;
  bool has_frozen_ = false;
};

// Settings and counters of the process. Any thread may use them.
struct FreezingSettings {
  std::atomic<bool> is_on{true};
  std::atomic<std::size_t> bound{1000};    // a thread with no more stacks than this freezes none
  std::atomic<std::size_t> frozen{0};      // how many greenlets are
  std::atomic<std::size_t> allowances{0};  // how often allow_freezing() has allowed a module
};
inline constinit FreezingSettings freezing;

// Whether the sweep freezes what is idle: it is on, and the system gives memory back for it.
bool is_freezing_on() noexcept;
// Lets stacks be frozen in which C code of this module, "package.module", waits for a switch.
// False if there is no memory.
bool allow_freezing(const char* module) noexcept;
// Freezes each suspended greenlet of the calling thread that may be frozen; returns how many.
std::size_t freeze_now() noexcept;

}  // namespace greenlet::core
