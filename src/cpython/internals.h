// CPython's internal headers, included in the way that compiles as C++ on every version, and small
// helpers for frames. Only the .cpp files of this room include it. The other rooms use the other
// headers here. (To add a version of CPython, begin in stack_state.h.)
#pragma once

#define Py_BUILD_CORE 1
// As in CPython's own shared modules: the headers then use no function that is not exported.
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>

#if PY_VERSION_HEX < 0x030d0000
// With this, pycore_atomic.h includes C's <stdatomic.h>, which C++20 lacks. Without it, it uses the
// compiler's builtins, with types of the same layout.
#undef HAVE_STD_ATOMIC
// A macro of the public headers. pycore_gc.h defines a function of the same name.
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

// True for frames that run no Python code and hold no references. The interpreter pushes one where
// C code enters it (3.12+), and one at the bottom of a thread (3.15).
inline bool is_shim(const _PyInterpreterFrame* frame) noexcept {
  return frame->owner != FRAME_OWNED_BY_THREAD && frame->owner != FRAME_OWNED_BY_GENERATOR;
}

// The Python frame that called a C function which called `frame`. Null if there is no such frame,
// or if the interpreter itself made the call.
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
