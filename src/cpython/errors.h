// The exception that is set, on every version.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// The exception that is set, normalized, with its traceback in it, and cleared; null if none.
// (PyErr_GetRaisedException() of 3.12+.)
PyObject* take_exception() noexcept;
// Sets it again; takes the reference. (PyErr_SetRaisedException() of 3.12+.)
void raise_exception(PyObject* exception) noexcept;

// Puts the exception that is set aside, as it is, and sets it again at its end, unless another is
// set then. For what may be called with one set, and must tell errors of its own from it.
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
