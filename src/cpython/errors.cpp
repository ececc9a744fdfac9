// The exception of the thread state, before 3.12 (three objects) and since (one).
#include "cpython/errors.h"

namespace greenlet::cpython {

PyObject* take_exception() noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  if (type == nullptr) {
    return nullptr;
  }
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) {
    PyException_SetTraceback(value, traceback);
  }
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
#endif
}

void raise_exception(PyObject* exception) noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  PyErr_SetRaisedException(exception);
#else
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(exception))), exception,
                PyException_GetTraceback(exception));
#endif
}

ExceptionAside::ExceptionAside() noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  value_ = PyErr_GetRaisedException();
#else
  PyErr_Fetch(&type_, &value_, &traceback_);
#endif
}

ExceptionAside::~ExceptionAside() {
#if PY_VERSION_HEX >= 0x030c0000
  if (PyErr_Occurred() == nullptr) {
    PyErr_SetRaisedException(value_);
    return;
  }
#else
  if (PyErr_Occurred() == nullptr) {
    PyErr_Restore(type_, value_, traceback_);
    return;
  }
  Py_XDECREF(type_);
  Py_XDECREF(traceback_);
#endif
  Py_XDECREF(value_);
}

}  // namespace greenlet::cpython
