#include "core/naming.h"

#include <structmember.h>

#include <cstring>

#include "core/listing.h"
#include "cpython/errors.h"
#include "cpython/locks.h"

namespace greenlet::core {
namespace {

// How many attributes of a greenlet are looked at, and how many callables inside of each other.
constexpr int kMostAttributes = 64;
constexpr int kMostWrappers = 8;

// Calls `make`, which returns a new str or null, and clears the error.
template <typename Make>
Ref made_by(Make make) noexcept {
  const cpython::ExceptionAside aside;
  Ref made = Ref::take(make());
  if (!made) {
    PyErr_Clear();
  }
  return made;
}

Ref text(const char* characters) noexcept {
  return made_by([&] { return PyUnicode_FromString(characters); });
}

// A str of exactly that class: its end runs no Python code, whenever that is.
Ref exact(PyObject* text) noexcept {
  return PyUnicode_CheckExact(text) ? Ref::share(text)
                                    : made_by([&] { return PyUnicode_FromObject(text); });
}

// An attribute in the greenlet's own dict. Looks at one after the other: a lookup by hash could
// call the __eq__ of another key.
Ref attribute(const Greenlet& greenlet, const char* name) noexcept {
  // Another thread may give the greenlet another dict while this one waits for the lock.
  const Ref held = Ref::share(reinterpret_cast<Object*>(greenlet.object())->dict);
  PyObject* const dict = held.get();
  if (dict == nullptr || !PyDict_CheckExact(dict)) {
    return {};
  }
  const cpython::ObjectLock lock(dict);
  PyObject *key, *value;
  Py_ssize_t position = 0;
  for (int i = 0; i < kMostAttributes && PyDict_Next(dict, &position, &key, &value); ++i) {
    if (PyUnicode_CheckExact(key) && PyUnicode_CompareWithASCIIString(key, name) == 0) {
      return Ref::share(value);
    }
  }
  return {};
}

bool is_bound_to(PyObject* callable, const PyObject* self) noexcept {
  return (PyMethod_Check(callable) && PyMethod_GET_SELF(callable) == self) ||
         (PyCFunction_Check(callable) && PyCFunction_GET_SELF(callable) == self);
}

Ref name_of_c_function(PyObject* function) noexcept {
  const char* const name = reinterpret_cast<PyCFunctionObject*>(function)->m_ml->ml_name;
  PyObject* const self = PyCFunction_GET_SELF(function);
  if (self == nullptr || PyModule_Check(self)) {
    return text(name);
  }
  const Ref type =
      name_of_type(PyType_Check(self) ? reinterpret_cast<PyTypeObject*>(self) : Py_TYPE(self));
  if (!type) {
    return {};
  }
  return made_by([&] { return PyUnicode_FromFormat("%U.%s", type.get(), name); });
}

Ref name_of_callable(PyObject* callable, const PartialField& partial) noexcept {
  Ref held = Ref::share(callable);
  for (int i = 0; i < kMostWrappers; ++i) {
    PyObject* const now = held.get();
    if (PyFunction_Check(now)) {
      return exact(reinterpret_cast<PyFunctionObject*>(now)->func_qualname);
    }
    if (PyType_Check(now)) {
      return name_of_type(reinterpret_cast<PyTypeObject*>(now));
    }
    if (PyMethod_Check(now)) {
      held = Ref::share(PyMethod_GET_FUNCTION(now));
    } else if (PyCFunction_Check(now)) {
      return name_of_c_function(now);
    } else if (Py_TYPE(now) == partial.type) {
      PyObject* inner;
      std::memcpy(&inner, reinterpret_cast<const char*>(now) + partial.offset, sizeof(PyObject*));
      if (inner == nullptr) {
        return {};
      }
      held = Ref::share(inner);
    } else {
      break;
    }
  }
  return name_of_type(Py_TYPE(held.get()));
}

bool is_function(PyObject* object) noexcept {
  return object != nullptr && (PyFunction_Check(object) || PyMethod_Check(object));
}

}  // namespace

Ref name_of_type(PyTypeObject* type) noexcept {
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    return exact(reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname);
  }
  const char* const dot = std::strrchr(type->tp_name, '.');
  return text(dot != nullptr ? dot + 1 : type->tp_name);
}

Ref name_given_to(const Greenlet& greenlet) noexcept {
  if (greenlet.notes() != nullptr) {
    if (const Ref name = name_of(greenlet)) {
      return exact(name.get());
    }
  }
  const Ref found = attribute(greenlet, "name");
  return found && PyUnicode_Check(found.get()) && PyUnicode_GET_LENGTH(found.get()) > 0
             ? exact(found.get())
             : Ref();
}

Ref name_of_function(const Greenlet& greenlet, PyObject* run, PyObject* first_argument,
                     const PartialField& partial) noexcept {
  if (run == nullptr || run == Py_None) {  // gevent's greenlets pass None until they start
    const Ref given = attribute(greenlet, "_run");
    return given ? name_of_callable(given.get(), partial) : Ref();
  }
  if (is_bound_to(run, greenlet.object())) {
    if (const Ref given = attribute(greenlet, "_run")) {
      return name_of_callable(given.get(), partial);
    }
    if (is_function(first_argument)) {
      return name_of_callable(first_argument, partial);
    }
  }
  return name_of_callable(run, partial);
}

PartialField find_partial_field(PyObject* type, PyObject* member) noexcept {
  if (!PyType_Check(type) || !Py_IS_TYPE(member, &PyMemberDescr_Type) ||
      PyDescr_TYPE(member) != reinterpret_cast<PyTypeObject*>(type)) {
    return {};
  }
  return {.type = PyDescr_TYPE(member),
          .offset = reinterpret_cast<PyMemberDescrObject*>(member)->d_member->offset};
}

}  // namespace greenlet::core
