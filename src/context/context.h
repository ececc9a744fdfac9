// The switch itself: leaving one flow of control on one stack and entering another on another.
// Nothing here knows Python. The register swap is one assembly file per architecture beside this;
// CMakeLists.txt says what a new one provides.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exceptions.h"
#include "sanitizers.h"

namespace greenlet::context {

// Whether the bytes of a suspended context's stack may be moved elsewhere, and be back before it
// goes on. Not in builds with a sanitizer, which keep notes of their own about the stack.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(GREENLET_VALGRIND)
inline constexpr bool kMayMove = false;
#else
inline constexpr bool kMayMove = true;
#endif

// A flow of control that is not running: where its callee-saved registers lie, and its share of
// the C++ exception state. Only the thread that runs it touches it. Does not own the stack.
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
  // `live` is what thread_exception_globals() returns in the calling thread, or has returned there.
  void* switch_to(Context& to, ExceptionGlobals* live, void* message) noexcept;

  // Like switch_to, for a context that has ended. Nobody may ever switch to it again, and its stack
  // may be given back as soon as `to` runs.
  [[noreturn]] void leave_for(Context& to, ExceptionGlobals* live, void* message) noexcept;

  // Calls function(argument) on the stack of this context, below its frames there, and returns the
  // result to the caller's stack. The context must be suspended. It is an ordinary call in all but
  // the stack pointer: the floating-point control words and the C++ exceptions under way stay the
  // caller's. Before the function has returned, nobody may switch to this context, and the function
  // may not switch to one that leads here. No exception may pass through the call.
  void* call_below(void* (*function)(void*), void* argument) noexcept;

  // Tells the sanitizers that this context, which was prepared earlier and does not run, has ended
  // for good. Call it before the stack is given back. Does nothing in a build without sanitizers.
  void retire() noexcept { sanitizers_.retire(); }

  // The stack pointer at which it was suspended; meaningful while it is.
  std::byte* stack_pointer() const noexcept { return static_cast<std::byte*>(sp_); }
  // Where that is in a Context, for tools that look from outside.
  static constexpr std::size_t offset_of_stack_pointer() noexcept { return offsetof(Context, sp_); }

 private:
  void swap_exceptions(Context& to, ExceptionGlobals* live) noexcept;
  void swap_exceptions_slowly(Context& to, ExceptionGlobals* live) noexcept;

  void* sp_ = nullptr;
  SavedExceptions exceptions_;  // empty while the context runs
  [[no_unique_address]] Sanitizers sanitizers_;
};

// The assembly (switch_*.S). Stores the stack pointer to *from_sp, continues at to_sp with
// `message` as the result of the switch that left it.
extern "C" [[gnu::visibility("hidden")]] void* greenlet_context_switch(void** from_sp, void* to_sp,
                                                                       void* message) noexcept;

// The same for a context that has ended. Where the system keeps bounds of stacks, this also notes
// those of the stack, for the next context that is prepared there.
#if defined(_WIN32)
extern "C" void* greenlet_context_leave(void** from_sp, void* to_sp, void* message) noexcept;
#else
[[gnu::always_inline]] inline void* greenlet_context_leave(void** from_sp, void* to_sp,
                                                           void* message) noexcept {
  return greenlet_context_switch(from_sp, to_sp, message);
}
#endif

// Hardly any code switches inside a catch block. A switch that always copied would take a third
// longer than one that only looks: it would store to both sides and to the runtime's words, and
// then load them.
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
  greenlet_context_leave(&sp_, to.sp_, message);
  __builtin_unreachable();
}

}  // namespace greenlet::context
