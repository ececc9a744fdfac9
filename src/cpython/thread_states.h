// The thread states of an interpreter, and how far its finalization has come.
#pragma once

#include <Python.h>

#include <cstdint>

namespace greenlet::cpython {

// False once the interpreter is so far into its finalization that running Python code is unwise.
bool can_run_python(PyThreadState* tstate) noexcept;

// Another thread state of this interpreter and this OS thread that runs nothing at the moment and
// is older than `before` (see id_of()): the latest such. Null if there is none, and before 3.12,
// where PyGILState_Ensure() would not learn of a change to it.
PyThreadState* idle_thread_state(PyThreadState* current, std::uint64_t before) noexcept;
// True if the interpreter may be ended from another thread state of the OS thread than `current`:
// as there is one already, or it is not the main interpreter.
bool may_be_left_behind(PyThreadState* current) noexcept;

// True from the moment Py_Finalize() has run the atexit functions (sys.is_finalizing()).
inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

}  // namespace greenlet::cpython
