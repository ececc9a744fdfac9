// What the C++ runtimes of Windows keep per thread about exceptions under way.
#include "context.h"
#include "platform/thread_windows.h"

namespace greenlet::context {

constinit ExceptionGlobals g_no_exception_globals{.caught = nullptr, .uncaught = 1};

// Nothing is swapped yet, so a switch in a catch block mixes up what the runtimes know of it.
ExceptionGlobals* thread_exception_globals() noexcept {
  // Always empty, so that a switch takes its fast path.
  static constinit thread_local ExceptionGlobals none;
  // This is called before the first switch of a thread.
  platform::remember_own_stack();
  return &none;
}

}  // namespace greenlet::context
