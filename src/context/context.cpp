// The rare part of context.h: beginning a context, calling a function below the frames of a
// suspended one (call_below()), and swapping exceptions.
#include "context.h"

namespace greenlet::context {

// The assembly (switch_*.S). Writes the first frame of a context below `top`, and returns the stack
// pointer to switch to. Only Windows wants to know where the stack begins.
#if defined(_WIN32)
extern "C" void* greenlet_context_make(void* top, Entry entry, void* low) noexcept;
#else
extern "C"
    [[gnu::visibility("hidden")]] void* greenlet_context_make(void* top, Entry entry) noexcept;
#endif

// The assembly. Calls function(argument) with the stack pointer below `below`.
extern "C" [[gnu::visibility("hidden")]] void* greenlet_context_call(void* below,
                                                                     void* (*function)(void*),
                                                                     void* argument) noexcept;

void Context::prepare(std::byte* low, std::byte* top, Entry entry) noexcept {
  sanitizers_.prepare(low, top);
#if defined(_WIN32)
  sp_ = greenlet_context_make(top, sanitizers_.first(entry), low);
#else
  sp_ = greenlet_context_make(top, sanitizers_.first(entry));
#endif
  exceptions_ = SavedExceptions{};
}

void* Context::call_below(void* (*function)(void*), void* argument) noexcept {
  return sanitizers_.call([this](void* (*called)(void*),
                                 void* with) { return greenlet_context_call(sp_, called, with); },
                          function, argument);
}

void Context::swap_exceptions_slowly(Context& to, ExceptionGlobals* live) noexcept {
  if (live == &g_no_exception_globals) {
    live = thread_exception_globals();
    if (live == &g_no_exception_globals) {
      return;
    }
  }
  exceptions_ = *live;
  *live = to.exceptions_;
  to.exceptions_ = SavedExceptions{};
}

}  // namespace greenlet::context
