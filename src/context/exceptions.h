// What C++ runtimes keep per thread about exceptions under way. A switch inside a catch block must
// swap it, or the other side's catch blocks would pop our exceptions. exceptions*.cpp find it.
#pragma once

#include <cstdint>

namespace greenlet::context {

// The runtimes of gcc and clang (Itanium C++ ABI 2.2.2, __cxa_eh_globals).
struct CxaGlobals {
  void* caught = nullptr;
  unsigned int uncaught = 0;
#ifdef __ARM_EABI__
  void* propagating = nullptr;  // C++ ABI for ARM 8.4.1: a cleanup is under way
#endif

  // Zero if there are none. Not a bool, so that two of these in one condition make one branch.
  std::uintptr_t any() const noexcept {
    std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(caught) | std::uintptr_t{uncaught};
#ifdef __ARM_EABI__
    bits |= reinterpret_cast<std::uintptr_t>(propagating);
#endif
    return bits;
  }
};

}  // namespace greenlet::context

// SavedExceptions is the state of a context that is suspended, ExceptionGlobals that of a thread.
#if defined(_WIN32)
#include "exceptions_windows.h"
#else
namespace greenlet::context {
using SavedExceptions = CxaGlobals;
using ExceptionGlobals = CxaGlobals;
}  // namespace greenlet::context
#endif

namespace greenlet::context {

// The calling thread's own (what __cxa_get_globals() returns). The address stays the same for the
// life of the thread, so a caller that switches often asks once and keeps it. While the process has
// no C++ runtime and none can be loaded, no code has exceptions: then this returns
// &g_no_exception_globals. A switch that is given that address asks again, because a library may be
// loaded at any time.
ExceptionGlobals* thread_exception_globals() noexcept;

// Never written. Not empty, so that a switch takes its slow path, and asks again.
extern ExceptionGlobals g_no_exception_globals;

}  // namespace greenlet::context
