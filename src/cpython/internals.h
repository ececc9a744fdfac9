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
#include <internal/pycore_code.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>
