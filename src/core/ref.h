// An owned reference to a Python object.
#pragma once

#include <Python.h>

#include <utility>

namespace greenlet::core {

// Owns one reference, or none. To drop it may run any Python code.
class Ref {
 public:
  Ref() = default;
  static Ref take(PyObject* owned) noexcept { return Ref(owned); }
  static Ref share(PyObject* borrowed) noexcept { return Ref(Py_XNewRef(borrowed)); }

  Ref(Ref&& other) noexcept : object_(other.release()) {}
  Ref& operator=(Ref&& other) noexcept {
    PyObject* const old = std::exchange(object_, other.release());
    Py_XDECREF(old);
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }

  PyObject* get() const noexcept { return object_; }
  PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  explicit Ref(PyObject* object) noexcept : object_(object) {}

  PyObject* object_ = nullptr;
};

}  // namespace greenlet::core
