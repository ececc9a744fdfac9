// The exception that is set in the thread state, in the same way on every version.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// Clears the exception that is set and returns it, normalized, with its traceback in it; null if
// none is set. (PyErr_GetRaisedException() of 3.12+.)
PyObject* take_exception() noexcept;
// Sets it again; takes the reference. (PyErr_SetRaisedException() of 3.12+.)
void raise_exception(PyObject* exception) noexcept;

// Puts aside the exception that is set, if any, and sets it again at the end of its life, unless
// another one is set then. For functions that may be called with an exception set, and that must
// tell their own errors from it.
class ExceptionAside {
 public:
  ExceptionAside() noexcept;
  ~ExceptionAside();
  ExceptionAside(const ExceptionAside&) = delete;
  ExceptionAside& operator=(const ExceptionAside&) = delete;

 private:
#if PY_VERSION_HEX < 0x030c0000
  PyObject* type_ = nullptr;
  PyObject* traceback_ = nullptr;
#endif
  PyObject* value_ = nullptr;
};

}  // namespace greenlet::cpython
