// The rare parts of context.h: beginning a context, and finding the C++ runtime's exception state.
#include "context.h"

#include <cxxabi.h>

namespace greenlet::context {

// The assembly (switch_*.S). Writes a context's first frame below `top`, returns its stack pointer.
extern "C" [[gnu::visibility("hidden")]] void* greenlet_context_make(void* top,
                                                                     Entry entry) noexcept;

ExceptionGlobals* thread_exception_globals() noexcept {
  // The runtime declares the type without defining it; the Itanium C++ ABI (2.2.2) does.
  return reinterpret_cast<ExceptionGlobals*>(abi::__cxa_get_globals());
}

void Context::prepare(std::byte* low, std::byte* top, Entry entry) noexcept {
  sanitizers_.prepare(low, top);
  sp_ = greenlet_context_make(top, sanitizers_.first(entry));
  exceptions_ = ExceptionGlobals{};
}

}  // namespace greenlet::context
