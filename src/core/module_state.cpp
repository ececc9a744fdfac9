// Where an interpreter keeps the module object whose state serves it: in the interpreter's own dict
// (PyInterpreterState_GetDict()), which no Python code sees.
#include "core/module_state.h"

#include "core/ref.h"
#include "cpython/errors.h"

namespace greenlet::core {
namespace {

constexpr const char* kModuleKey = "greenlet._greenlet";

// The interpreter's dict and the key in it. The key is empty, with an exception set, if there is no
// memory for either.
struct Place {
  PyObject* dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  Ref key = Ref::take(dict != nullptr ? PyUnicode_FromString(kModuleKey) : PyErr_NoMemory());
};

ModuleState* registered_state() noexcept {
  PyObject* const module = ModuleState::registered_module();
  return module == nullptr ? nullptr : &ModuleState::of(module);
}

}  // namespace

PyObject* ModuleState::registered_module() noexcept {
  const Place place;
  return place.key ? PyDict_GetItemWithError(place.dict, place.key.get()) : nullptr;
}

bool ModuleState::register_module(PyObject* module) noexcept {
  const Place place;
  return place.key && PyDict_SetItem(place.dict, place.key.get(), module) == 0;
}

ModuleState* ModuleState::of_interpreter_or_null() noexcept {
  const cpython::ExceptionAside aside;
  ModuleState* const state = registered_state();
  if (state == nullptr) {
    PyErr_Clear();
  }
  return state;
}

ModuleState* ModuleState::of_interpreter() noexcept {
  const cpython::ExceptionAside aside;  // gives way to an exception that is set here
  ModuleState* const state = registered_state();
  if (state == nullptr && PyErr_Occurred() == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is not loaded in this interpreter");
  }
  return state;
}

}  // namespace greenlet::core
