// The switch itself: leaving one flow of control on one stack and entering another on another.
// Nothing here knows Python. The register swap is one assembly file per architecture beside this.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sanitizers.h"

namespace greenlet::context {

// What the C++ runtime keeps per thread about exceptions under way (Itanium C++ ABI 2.2.2,
// __cxa_eh_globals): a switch inside a catch block must swap it, or the other side's catch
// blocks would pop our exceptions.
struct ExceptionGlobals {
  void* caught = nullptr;
  unsigned int uncaught = 0;

  // Zero if there are none. Not a bool: two of these in one condition are to be one branch.
  std::uintptr_t any() const noexcept {
    return reinterpret_cast<std::uintptr_t>(caught) | std::uintptr_t{uncaught};
  }
};

// This thread's live copy (what __cxa_get_globals() returns); stable for the life of the thread,
// so whoever switches often asks once and keeps it. While the process has no C++ runtime and none
// can be loaded, nobody has exceptions: then it is g_no_exception_globals. A switch that is given
// this asks again, for a library may be loaded at any time.
ExceptionGlobals* thread_exception_globals() noexcept;

// Never written. Not empty, so that a switch looks twice.
extern ExceptionGlobals g_no_exception_globals;

// A flow of control that is not running: where its callee-saved registers lie, and its share of
// the C++ exception state. Touched only by the thread that runs it. Does not own the stack.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Makes this a context that starts in `entry` on the stack that ends at `top` (exclusive,
  // 16-byte aligned) and begins at `low`, with the caller's floating-point control words.
  void prepare(std::byte* low, std::byte* top, Entry entry) noexcept;

  // Leaves this context for `to`, which receives `message` from its own switch_to (or as the
  // argument of its entry). Returns what the next switch to this context brings.
  // `live` is thread_exception_globals() of the calling thread, or was it.
  void* switch_to(Context& to, ExceptionGlobals* live, void* message) noexcept;

  // As switch_to, for a context that has ended: nobody may ever switch to it again, and its stack
  // may be given back as soon as `to` runs.
  [[noreturn]] void leave_for(Context& to, ExceptionGlobals* live, void* message) noexcept;

  // Calls function(argument) on the stack of this context, which is suspended, below what it has
  // there; returns the result to the caller's stack. It is an ordinary call in all but the stack
  // pointer: the floating-point control words and the C++ exceptions under way stay the caller's.
  // Nobody may switch to this context, nor from what the function runs to another that leads here,
  // before the function has returned; and no exception may pass through the call.
  void* call_below(void* (*function)(void*), void* argument) noexcept;

  // Tells the sanitizers that this context, prepared earlier and not running, has ended for good.
  // To be called before its stack is given back; does nothing in a build without sanitizers.
  void retire() noexcept { sanitizers_.retire(); }

  // The stack pointer it was left at; meaningful while suspended.
  std::byte* stack_pointer() const noexcept { return static_cast<std::byte*>(sp_); }

 private:
  void swap_exceptions(Context& to, ExceptionGlobals* live) noexcept;
  void swap_exceptions_slowly(Context& to, ExceptionGlobals* live) noexcept;

  void* sp_ = nullptr;
  ExceptionGlobals exceptions_;  // empty while the context runs
  [[no_unique_address]] Sanitizers sanitizers_;
};

// The assembly (switch_*.S). Stores the stack pointer to *from_sp, continues at to_sp with
// `message` as the result of the switch that left it.
extern "C" [[gnu::visibility("hidden")]] void* greenlet_context_switch(void** from_sp, void* to_sp,
                                                                       void* message) noexcept;

// Hardly anybody switches inside a catch block. Copying regardless takes a third longer than a
// whole switch that only looks (stores to both sides and to the runtime's words, then the loads).
[[gnu::always_inline]] inline void Context::swap_exceptions(Context& to,
                                                            ExceptionGlobals* live) noexcept {
  if ((live->any() | to.exceptions_.any()) != 0) [[unlikely]] {
    swap_exceptions_slowly(to, live);
  }
}

[[gnu::always_inline]] inline void* Context::switch_to(Context& to, ExceptionGlobals* live,
                                                       void* message) noexcept {
  swap_exceptions(to, live);
  sanitizers_.leave(to.sanitizers_);
  void* brought = greenlet_context_switch(&sp_, to.sp_, message);
  sanitizers_.arrive();
  return brought;
}

[[gnu::always_inline]] inline void Context::leave_for(Context& to, ExceptionGlobals* live,
                                                      void* message) noexcept {
  swap_exceptions(to, live);
  sanitizers_.leave_for_good(to.sanitizers_);
  greenlet_context_switch(&sp_, to.sp_, message);
  __builtin_unreachable();
}

}  // namespace greenlet::context
