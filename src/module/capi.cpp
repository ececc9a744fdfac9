#include "module/capi.h"

#include "core/greenlet.h"
#include "core/thread.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::ModuleState;
using core::Ref;
using core::Thread;

constexpr const char* kCapsuleName = "greenlet._C_API";

// Compiled programs index this table: entries are never moved.
struct Table {
  PyTypeObject* greenlet_type;
  PyObject* error;
  PyObject* greenlet_exit;
  PyObject* (*create)(PyObject* run, PyObject* parent);
  PyObject* (*get_current)();
  PyObject* (*throw_into)(PyObject* self, PyObject* type, PyObject* value, PyObject* traceback);
  PyObject* (*switch_to)(PyObject* self, PyObject* args, PyObject* kwargs);
  int (*set_parent)(PyObject* self, PyObject* parent);
  int (*is_main)(PyObject* self);
  int (*is_started)(PyObject* self);
  int (*is_active)(PyObject* self);
  PyObject* (*get_parent)(PyObject* self);
};
static_assert(sizeof(Table) == 12 * sizeof(void*));

// The greenlet behind a caller's argument; null with TypeError set if it is none.
Greenlet* checked(PyObject* object) {
  ModuleState* const state = ModuleState::of_interpreter();
  if (state == nullptr) {
    return nullptr;
  }
  if (object == nullptr || !PyObject_TypeCheck(object, state->greenlet_type)) {
    PyErr_BadArgument();
    return nullptr;
  }
  return &Greenlet::of(object);
}

PyObject* create(PyObject* run, PyObject* parent) {
  ModuleState* const state = ModuleState::of_interpreter();
  if (state == nullptr) {
    return nullptr;
  }
  Ref self = Ref::take(new_greenlet(state->greenlet_type, nullptr, nullptr));
  if (!self) {
    return nullptr;
  }
  Greenlet& greenlet = Greenlet::of(self.get());
  if (run != nullptr && set_run(greenlet, run) < 0) {
    return nullptr;
  }
  if (parent != nullptr && set_parent(greenlet, parent) < 0) {
    return nullptr;
  }
  return self.release();
}

PyObject* get_current() { return Thread::getcurrent(); }

PyObject* throw_entry(PyObject* self, PyObject* type, PyObject* value, PyObject* traceback) {
  Greenlet* const target = checked(self);
  if (target == nullptr) {
    return nullptr;
  }
  if (type == nullptr) {
    PyErr_BadArgument();
    return nullptr;
  }
  return throw_into(*target, type, value, traceback);
}

PyObject* switch_entry(PyObject* self, PyObject* args, PyObject* kwargs) {
  Greenlet* const target = checked(self);
  if (target == nullptr) {
    return nullptr;
  }
  Ref positional =
      Ref::share(args == nullptr || args == Py_None ? target->module().empty_tuple : args);
  if (kwargs == Py_None) {
    kwargs = nullptr;
  }
  if (!PyTuple_Check(positional.get()) || (kwargs != nullptr && !PyDict_Check(kwargs))) {
    PyErr_BadArgument();
    return nullptr;
  }
  // A copy, as a Python call makes one: the caller may change its dict while we spread it.
  Ref keywords = Ref::take(kwargs != nullptr ? PyDict_Copy(kwargs) : nullptr);
  if (kwargs != nullptr && !keywords) {
    return nullptr;
  }
  return switch_to(*target, std::move(positional), std::move(keywords));
}

int set_parent_entry(PyObject* self, PyObject* parent) {
  ModuleState* const state = ModuleState::of_interpreter();
  if (state == nullptr) {
    return -1;
  }
  if (self == nullptr || !PyObject_TypeCheck(self, state->greenlet_type)) {
    PyErr_Format(PyExc_TypeError, "GreenletChecker: Expected any type of greenlet, not %s",
                 self == nullptr ? "NULL" : Py_TYPE(self)->tp_name);
    return -1;
  }
  return set_parent(Greenlet::of(self), parent);
}

int is_main(PyObject* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->is_main();
}

int is_started(PyObject* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->is_started();
}

int is_active(PyObject* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->is_active();
}

// Null without an exception for a main greenlet.
PyObject* get_parent(PyObject* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? nullptr : greenlet->parent().release();
}

void free_table(PyObject* capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, kCapsuleName)); }

}  // namespace

PyObject* make_capi(const ModuleState& state) {
  auto* const table = static_cast<Table*>(PyMem_Malloc(sizeof(Table)));
  if (table == nullptr) {
    return PyErr_NoMemory();
  }
  *table = Table{state.greenlet_type, state.error,   state.greenlet_exit, &create,  &get_current,
                 &throw_entry,        &switch_entry, &set_parent_entry,   &is_main, &is_started,
                 &is_active,          &get_parent};
  PyObject* const capsule = PyCapsule_New(table, kCapsuleName, &free_table);
  if (capsule == nullptr) {
    PyMem_Free(table);
  }
  return capsule;
}

}  // namespace greenlet::module
