// The rare parts of context.h: beginning a context, and finding the C++ runtime's exception state.
#include "context.h"

#include <dlfcn.h>

#include <atomic>

// glibc 2.34 moved these into libc, under a new version. A wheel that is built with a newer one is
// to run on older ones, and the old version is in all of them. (This file is compiled without LTO,
// which may separate such a directive from the code that it is about.)
#if defined(__GLIBC__) && defined(__x86_64__)
asm(".symver dlopen, dlopen@GLIBC_2.2.5");
asm(".symver dlsym, dlsym@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
asm(".symver dlopen, dlopen@GLIBC_2.17");
asm(".symver dlsym, dlsym@GLIBC_2.17");
#endif

namespace greenlet::context {
namespace {

using Getter = ExceptionGlobals* (*)();

// What stands in for the C++ runtime where there is none: nobody has exceptions there.
ExceptionGlobals* no_exceptions() noexcept {
  static constinit thread_local ExceptionGlobals none;
  return &none;
}

// __cxa_get_globals() of the C++ runtime that other libraries use, too, if not now then later. Not
// linked to, as that would load it with us: it takes longer than all of greenlet, which many import
// and never use.
Getter find_getter() noexcept {
  void* const runtime = dlopen("libstdc++.so.6", RTLD_LAZY);
  void* const found = runtime == nullptr ? nullptr : dlsym(runtime, "__cxa_get_globals");
  return found == nullptr ? &no_exceptions : reinterpret_cast<Getter>(found);
}

}  // namespace

// The assembly (switch_*.S). Writes a context's first frame below `top`, returns its stack pointer.
extern "C" [[gnu::visibility("hidden")]] void* greenlet_context_make(void* top,
                                                                     Entry entry) noexcept;

ExceptionGlobals* thread_exception_globals() noexcept {
  static constinit std::atomic<Getter> getter{nullptr};
  if (getter.load(std::memory_order_relaxed) == nullptr) {
    getter.store(find_getter(), std::memory_order_relaxed);
  }
  return getter.load(std::memory_order_relaxed)();
}

void Context::prepare(std::byte* low, std::byte* top, Entry entry) noexcept {
  sanitizers_.prepare(low, top);
  sp_ = greenlet_context_make(top, sanitizers_.first(entry));
  exceptions_ = ExceptionGlobals{};
}

}  // namespace greenlet::context
