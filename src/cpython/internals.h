// CPython's internal headers, included the one way that compiles as C++ on every version.
// Only the .cpp files of this room include it; what the other rooms need comes through the
// other headers here.
#pragma once

#define Py_BUILD_CORE 1
// As in CPython's own shared modules: functions that the executable does not export are not used.
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#if PY_VERSION_HEX < 0x030d0000
// pycore_atomic.h would ask for C's <stdatomic.h>, which C++20 lacks; with the compiler's
// builtins it declares types of the same layout.
#undef HAVE_STD_ATOMIC
// A macro of the public headers; pycore_gc.h defines a function of this name.
#undef _PyGC_FINALIZED
#endif

#if PY_VERSION_HEX >= 0x030e0000
#include <internal/pycore_interpframe.h>
#include <internal/pycore_stackref.h>
#else
#include <internal/pycore_frame.h>
#endif
#if PY_VERSION_HEX >= 0x030d0000
#include <internal/pycore_critical_section.h>
#include <internal/pycore_gc.h>
#include <internal/pycore_genobject.h>
#include <internal/pycore_instruments.h>
#include <internal/pycore_object.h>
#include <internal/pycore_tstate.h>
#endif
#if PY_VERSION_HEX >= 0x030e0000 && PY_VERSION_HEX < 0x030f0000
#include <internal/pycore_optimizer.h>
#endif
#include <internal/pycore_code.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>

namespace greenlet::cpython {

inline PyCodeObject* code_of(_PyInterpreterFrame* frame) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return _PyFrame_GetCode(frame);
#else
  return frame->f_code;
#endif
}

// True for the frames that the interpreter pushes for itself where C code enters it (3.12+) and at
// the bottom of a thread (3.15): they run no Python code and hold nothing.
inline bool is_shim(const _PyInterpreterFrame* frame) noexcept {
  return frame->owner != FRAME_OWNED_BY_THREAD && frame->owner != FRAME_OWNED_BY_GENERATOR;
}

// The frame of the Python code that called `frame`'s through C functions; null if there is none, or
// it called without them.
inline _PyInterpreterFrame* caller_through_c(_PyInterpreterFrame* frame) noexcept {
  _PyInterpreterFrame* caller = frame->previous;
#if PY_VERSION_HEX >= 0x030c0000
  caller = caller != nullptr && is_shim(caller) ? caller->previous : nullptr;
  return caller != nullptr && !is_shim(caller) ? caller : nullptr;
#else
  return frame->is_entry ? caller : nullptr;
#endif
}

}  // namespace greenlet::cpython
