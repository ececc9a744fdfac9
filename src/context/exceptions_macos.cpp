// Finding what the C++ runtime keeps per thread about exceptions under way. Every process on macOS
// has loaded libc++abi: the library of Objective-C needs it, and the C library needs that.
#include <dlfcn.h>

#include <atomic>

#include "context.h"

namespace greenlet::context {

constinit ExceptionGlobals g_no_exception_globals{.caught = nullptr, .uncaught = 1};

ExceptionGlobals* thread_exception_globals() noexcept {
  using Getter = ExceptionGlobals* (*)();
  static constinit std::atomic<Getter> known{nullptr};
  Getter getter = known.load(std::memory_order_relaxed);
  if (getter == nullptr) {
    getter = reinterpret_cast<Getter>(dlsym(RTLD_DEFAULT, "__cxa_get_globals"));
    known.store(getter, std::memory_order_relaxed);
  }
  return getter == nullptr ? &g_no_exception_globals : getter();
}

}  // namespace greenlet::context
