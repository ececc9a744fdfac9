// Finding what the C++ runtime keeps per thread about exceptions under way.
#include "context.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstddef>
#include <initializer_list>

#include "platform/old_glibc.h"

namespace greenlet::context {
namespace {

using Getter = ExceptionGlobals* (*)();

Getter getter_of(void* library) noexcept {
  return reinterpret_cast<Getter>(dlsym(library, "__cxa_get_globals"));
}

// __cxa_get_globals() of the C++ runtime that the other libraries of the process use, or will use:
// the program's own, or the usual one. We do not link to it, because then it would be loaded with
// us: that takes longer than loading all of greenlet, which many programs import and never use.
// Null if there is none and it may not be loaded.
Getter find_getter(bool may_load) noexcept {
  const int mode = may_load ? RTLD_LAZY : RTLD_LAZY | RTLD_NOLOAD;
  Getter found = getter_of(RTLD_DEFAULT);
  for (const char* const name : {"libstdc++.so.6", "libc++abi.so.1"}) {
    void* const library = found == nullptr ? dlopen(name, mode) : nullptr;
    if (library != nullptr) {
      found = getter_of(library);
    }
  }
  return found;
}

// How many libraries the process has loaded so far. A few dozen nanoseconds.
unsigned long long libraries_loaded() noexcept {
  unsigned long long count = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* first, std::size_t, void* result) {
        *static_cast<unsigned long long*>(result) = first->dlpi_adds;
        return 1;  // stop: it is the same for all libraries
      },
      &count);
  return count;
}

}  // namespace

constinit ExceptionGlobals g_no_exception_globals = [] {
  ExceptionGlobals some;
  some.uncaught = 1;
  return some;
}();

ExceptionGlobals* thread_exception_globals() noexcept {
  static constinit std::atomic<Getter> known{nullptr};
  // No byte: on riscv64, gcc 11 and 12 would call libatomic.
  static constinit std::atomic<unsigned> tries{0};
  // libraries_loaded() at the last search in vain. Only a library loaded later can have a runtime.
  static constinit std::atomic<unsigned long long> searched{0};
  Getter getter = known.load(std::memory_order_acquire);
  if (getter == nullptr) {
    const unsigned long long loaded = libraries_loaded();
    if (loaded != searched.load(std::memory_order_relaxed)) {
      // We try to load it once. Other code may load it later.
      getter = find_getter(tries.fetch_add(1, std::memory_order_relaxed) == 0);
      if (getter != nullptr) {
        known.store(getter, std::memory_order_release);
      } else {
        searched.store(loaded, std::memory_order_relaxed);
      }
    }
  }
  return getter == nullptr ? &g_no_exception_globals : getter();
}

}  // namespace greenlet::context
