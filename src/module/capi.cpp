// The entries of the C API's table, and the memory of the tables.
#include "module/capi.h"

#include <greenlet/greenlet.h>

#include <cstddef>
#include <new>
#include <utility>

#include "core/free_list.h"
#include "core/greenlet.h"
#include "core/thread_registry.h"
#include "core/tracing.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::ModuleState;
using core::Ref;
using core::Thread;
using core::ThreadRegistry;

constexpr const char* kCapsuleName = "greenlet._C_API";

// Programs keep the address of a table in static storage. They may call us by it after the end of
// its interpreter: in another interpreter, or from objects that the end destroys last. So tables
// are never freed. They are used again for later interpreters.
struct Table {
  PyGreenlet_CAPI entries;
  Table* next_free;
};
static_assert(offsetof(Table, entries) == 0);

constinit core::FreeList<Table, &Table::next_free> unused;

// The main interpreter's table, the same one after Py_Finalize() and Py_Initialize(). Its type is
// the same, too. So a program that keeps the address finds the present objects there.
constinit Table main_table{};

constexpr std::size_t kPointers = 13;
static_assert(sizeof(PyGreenlet_CAPI) == kPointers * sizeof(void*));
static_assert(PyGreenlet_SWITCH_THROW == core::SwitchHook::kThrow &&
              PyGreenlet_SWITCH_FINISHED == core::SwitchHook::kOriginFinished);
static_assert(sizeof(PyGreenlet) == sizeof(core::Object));
static_assert(offsetof(PyGreenlet, weakreflist) == offsetof(core::Object, weakreflist));
static_assert(offsetof(PyGreenlet, dict) == offsetof(core::Object, dict));
static_assert(offsetof(PyGreenlet, pimpl) == offsetof(core::Object, greenlet));

PyObject* as_object(PyGreenlet* greenlet) { return reinterpret_cast<PyObject*>(greenlet); }
PyGreenlet* as_greenlet(PyObject* object) { return reinterpret_cast<PyGreenlet*>(object); }

// The state of the calling thread's interpreter. Null with an exception set if greenlet is not
// loaded there. A look into the interpreter's dict takes longer than a switch; a thread that has
// used greenlets needs none.
ModuleState* current_state() {
  if (Thread* const thread = ThreadRegistry::current_or_null()) [[likely]] {
    return &thread->running().module();
  }
  (void)PyThreadState_Get();  // ends the process with a text if there is no thread state
  return ModuleState::of_interpreter();
}

// The greenlet of a caller's argument; null with TypeError set if the argument is no greenlet.
Greenlet* checked(PyGreenlet* self) {
  ModuleState* const state = current_state();
  if (state == nullptr) {
    return nullptr;
  }
  PyObject* const object = as_object(self);
  if (object == nullptr || !PyObject_TypeCheck(object, state->greenlet_type)) {
    PyErr_BadArgument();
    return nullptr;
  }
  return &Greenlet::of(object);
}

PyGreenlet* create(PyObject* run, PyGreenlet* parent) {
  ModuleState* const state = current_state();
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
  if (parent != nullptr && as_object(parent) != Py_None &&
      set_parent(greenlet, as_object(parent)) < 0) {
    return nullptr;
  }
  return as_greenlet(self.release());
}

PyGreenlet* get_current() { return as_greenlet(module::get_current()); }

PyObject* throw_entry(PyGreenlet* self, PyObject* type, PyObject* value, PyObject* traceback) {
  Greenlet* const target = checked(self);
  if (target == nullptr) {
    return nullptr;
  }
  if (type == nullptr) {
    PyErr_BadArgument();
    return nullptr;
  }
  // What is thrown takes the place of an exception that is set, since no Python code may run while
  // one is. That exception may own what is thrown: PyErr_Occurred() is a borrowed reference.
  const bool is_set = PyErr_Occurred() != nullptr;
  const Ref held_type = Ref::share(is_set ? type : nullptr);
  const Ref held_value = Ref::share(is_set ? value : nullptr);
  const Ref held_traceback = Ref::share(is_set ? traceback : nullptr);
  if (is_set) {
    PyErr_Clear();
  }
  return throw_into(*target, type, value, traceback);
}

// None as `args`: the target receives None, or starts without arguments. With keywords, None means
// that there are no positional arguments.
PyObject* switch_entry(PyGreenlet* self, PyObject* args, PyObject* kwargs) {
  Greenlet* const target = checked(self);
  if (target == nullptr || PyErr_Occurred() != nullptr) {
    return nullptr;  // after a switch, the exception would be raised in unrelated code
  }
  if (kwargs == Py_None) {
    kwargs = nullptr;
  }
  if (kwargs != nullptr && !PyDict_Check(kwargs)) {
    PyErr_BadArgument();
    return nullptr;
  }
  Thread* const thread = ThreadRegistry::current_or_null();
  if (args == Py_None) [[unlikely]] {
    if (kwargs == nullptr || PyDict_GET_SIZE(kwargs) == 0) {
      return send(*target, core::Message::value_or_nothing(Ref::share(Py_None)));
    }
    args = nullptr;
  }
  if (args == nullptr) {
    args = target->module().empty_tuple;
  }
  Ref positional = Ref::share(args);
  if (thread != nullptr && thread->can_resume(*target) && kwargs == nullptr &&
      PyTuple_CheckExact(args)) [[likely]] {
    if (PyTuple_GET_SIZE(args) == 1) {
      positional = Ref::share(PyTuple_GET_ITEM(args, 0));
    }
    return thread->resume(*target, positional.release(), {});
  }
  if (!PyTuple_Check(args)) {
    PyErr_BadArgument();
    return nullptr;
  }
  // A copy, like the one of a Python call: the caller may change its dict while run is called.
  Ref keywords = Ref::take(kwargs != nullptr ? PyDict_Copy(kwargs) : nullptr);
  if (kwargs != nullptr && !keywords) {
    return nullptr;
  }
  return send(*target, core::Message::call(std::move(positional), std::move(keywords)));
}

int set_parent_entry(PyGreenlet* self, PyGreenlet* parent) {
  ModuleState* const state = current_state();
  if (state == nullptr) {
    return -1;
  }
  PyObject* const object = as_object(self);
  if (object == nullptr || !PyObject_TypeCheck(object, state->greenlet_type)) {
    PyErr_Format(PyExc_TypeError, "GreenletChecker: Expected any type of greenlet, not %s",
                 object == nullptr ? "NULL" : Py_TYPE(object)->tp_name);
    return -1;
  }
  return set_parent(Greenlet::of(object), as_object(parent));
}

int is_main(PyGreenlet* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->is_main();
}

int is_started(PyGreenlet* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->is_started();
}

int is_active(PyGreenlet* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? -1 : greenlet->appears_active();
}

// Null without an exception for a main greenlet.
PyGreenlet* get_parent(PyGreenlet* self) {
  const Greenlet* const greenlet = checked(self);
  return greenlet == nullptr ? nullptr : as_greenlet(greenlet->parent().release());
}

int set_switch_hook(PyGreenlet_SwitchHook function, void* data) {
  ModuleState* const state = current_state();
  if (state == nullptr || core::set_hook(*state, {.function = function, .data = data})) {
    return state == nullptr ? -1 : 0;
  }
  PyErr_SetString(PyExc_RuntimeError, "another switch hook is set");
  return -1;
}

void give_back(Table* table) {
  // The interpreter destroys these objects. PyGreenlet_Check() is false for null. But null in place
  // of an exception would crash.
  table->entries.type = nullptr;
  table->entries.error = PyExc_RuntimeError;
  table->entries.exit = PyExc_RuntimeError;
  unused.put(table);
}

void destroy(PyObject* capsule) {
  give_back(static_cast<Table*>(PyCapsule_GetPointer(capsule, kCapsuleName)));
}

}  // namespace

PyObject* make_capi(const ModuleState& state) {
  const bool is_main_table = !PyType_HasFeature(state.greenlet_type, Py_TPFLAGS_HEAPTYPE);
  Table* table = is_main_table ? &main_table : unused.take();
  if (table == nullptr) {
    void* const memory = PyMem_RawMalloc(sizeof(Table));
    if (memory == nullptr) {
      return PyErr_NoMemory();
    }
    table = new (memory) Table;
  }
  table->entries = {state.greenlet_type, state.error,   state.greenlet_exit, &create,  &get_current,
                    &throw_entry,        &switch_entry, &set_parent_entry,   &is_main, &is_started,
                    &is_active,          &get_parent,   &set_switch_hook};
  PyObject* const capsule = PyCapsule_New(table, kCapsuleName, is_main_table ? nullptr : &destroy);
  if (capsule == nullptr) {
    if (!is_main_table) {
      give_back(table);
    }
    return nullptr;
  }
  // The published greenlet sets no context. So a program can tell whether there is a hook.
  PyCapsule_SetContext(capsule, reinterpret_cast<void*>(kPointers));
  return capsule;
}

}  // namespace greenlet::module
