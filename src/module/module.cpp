// The extension module greenlet._greenlet: its types, constants and functions; the module that owns
// the state, one in each interpreter; and the import, which gives importlib a view of that module.
#include <Python.h>
#include <atomic>
#include <ctime>
#include <new>

#include "core/module_state.h"
#include "core/thread_end.h"
#include "core/thread_registry.h"
#include "cpython/gc_protocol.h"
#include "cpython/layout.h"
#include "cpython/stack_bounds.h"
#include "cpython/thread_states.h"
#include "module/capi.h"
#include "module/functions.h"
#include "module/greenlet_type.h"
#include "module/inspect.h"
#include "module/stacks.h"
#include "module/timeline.h"
#include "platform/clock.h"
#include "platform/process.h"
#include "stack/stack.h"

namespace greenlet::module {
namespace {

using core::ModuleState;
using core::Ref;
using core::ThreadRegistry;

// --- module ---------------------------------------------------------------------------------

// Names of the module that are attributes of the type as well.
constexpr const char* kSharedWithType[] = {"GreenletExit", "error", "getcurrent", "settrace",
                                           "gettrace"};

// Finds the functions that CPython does not export, in the slots of a class with __del__.
bool find_hidden_slots(ModuleState& state) {
  const Ref names = Ref::take(Py_BuildValue("{sO}", "__del__", Py_None));
  const Ref sample =
      names ? Ref::take(PyErr_NewException("greenlet._Sample", nullptr, names.get())) : Ref();
  if (!sample) {
    return false;
  }
  auto* const type = reinterpret_cast<PyTypeObject*>(sample.get());
  state.subtype_dealloc = type->tp_dealloc;
  state.subtype_traverse = type->tp_traverse;
  state.slot_tp_finalize = type->tp_finalize;
  return true;
}

// The method __reduce__ of the class ModuleState::final_exit. That class has no name by which
// pickle could import it, so copies and pickles are instances of its base class GreenletExit.
PyObject* reduce_final_exit(PyObject*, PyObject* self) {
  const Ref reduced = Ref::take(PyObject_CallMethod(PyExc_BaseException, "__reduce__", "O", self));
  if (!reduced) {
    return nullptr;
  }
  const Ref rest = Ref::take(PySequence_GetSlice(reduced.get(), 1, PY_SSIZE_T_MAX));
  const ModuleState* const state = ModuleState::of_interpreter();
  const Ref base = Ref::take(state != nullptr ? PyTuple_Pack(1, state->greenlet_exit) : nullptr);
  return rest && base ? PySequence_Concat(base.get(), rest.get()) : nullptr;
}

PyObject* make_final_exit(PyObject* greenlet_exit) {
  static PyMethodDef reduce = {"__reduce__", &reduce_final_exit, METH_O, nullptr};
  // A C function in a class is bound to an instance only if it is wrapped as an instance method.
  const Ref function = Ref::take(PyCFunction_New(&reduce, nullptr));
  const Ref method = Ref::take(function ? PyInstanceMethod_New(function.get()) : nullptr);
  return !method ? nullptr
                 : PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type),
                                         "s(OO){sO,ss,ss}", "GreenletExit", greenlet_exit,
                                         PyExc_SystemExit, reduce.ml_name, method.get(),
                                         "__module__", "greenlet", "__doc__",
                                         "A GreenletExit at the end of a thread or from a "
                                         "collection; event loops let it pass, as a SystemExit.");
}

int add_types(PyObject* module, ModuleState& state) {
  // One after the other, each with its check: nothing may be made while an exception is set.
  state.error = PyErr_NewExceptionWithDoc(
      "greenlet.error",
      "Raised for a switch that is impossible, such as one to another thread's greenlet.", nullptr,
      nullptr);
  if (state.error == nullptr) {
    return -1;
  }
  state.greenlet_exit = PyErr_NewExceptionWithDoc(
      "greenlet.GreenletExit",
      "Ends the greenlet in which it is raised. The parent receives it as a value.",
      PyExc_BaseException, nullptr);
  if (state.greenlet_exit == nullptr ||
      (state.final_exit = make_final_exit(state.greenlet_exit)) == nullptr) {
    return -1;
  }
  if (!find_hidden_slots(state)) {
    return -1;
  }
  if ((state.greenlet_type = make_greenlet_type(module)) == nullptr ||
      PyModule_AddObjectRef(module, "error", state.error) < 0 ||
      PyModule_AddObjectRef(module, "GreenletExit", state.greenlet_exit) < 0 ||
      PyModule_AddObjectRef(module, "greenlet", reinterpret_cast<PyObject*>(state.greenlet_type)) <
          0) {
    return -1;
  }
  for (const char* const name : kSharedWithType) {
    const Ref value = Ref::take(PyObject_GetAttrString(module, name));
    // The type is immutable for Python code. No code has used it yet, so this change is safe.
    if (!value || PyDict_SetItemString(state.greenlet_type->tp_dict, name, value.get()) < 0) {
      return -1;
    }
  }
  PyType_Modified(state.greenlet_type);
  return 0;
}

int fill(PyObject* module) {
  if (cpython::check_layout() < 0) {
    return -1;
  }
  cpython::watch_new_thread_states(&ThreadRegistry::find_stack);
  auto& state = *new (PyModule_GetState(module)) ModuleState();
  state.object = module;
  static constinit std::atomic<std::uint64_t> last_serial{0};
  state.serial = ++last_serial;
  state.run_name = PyUnicode_InternFromString("run");
  state.empty_tuple = PyTuple_New(0);
  if (state.run_name == nullptr || state.empty_tuple == nullptr || add_types(module, state) < 0) {
    return -1;
  }
  state.capi = make_capi(state);
  if (state.capi == nullptr || PyModule_AddObjectRef(module, "_C_API", state.capi) < 0 ||
      PyModule_AddFunctions(module, stack_functions) < 0 ||
      PyModule_AddFunctions(module, inspect_functions) < 0 ||
      PyModule_AddFunctions(module, timeline_functions) < 0 ||
      PyModule_AddStringConstant(module, "__version__", GREENLET_VERSION_STRING) < 0 ||
      PyModule_AddIntConstant(module, "_STACK_MIN_SIZE", stack::kMinSize) < 0 ||
      PyModule_AddIntConstant(module, "_STACK_MAX_SIZE", stack::kMaxSize) < 0 ||
      PyModule_AddIntConstant(module, "CLOCKS_PER_SEC", CLOCKS_PER_SEC) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_GC", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_TRACING", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_CONTEXT_VARS", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_STANDARD_THREADING", 1) < 0) {
    return -1;
  }
  return 0;
}

int traverse(PyObject* module, visitproc visit, void* arg) {
  auto* const state = static_cast<ModuleState*>(PyModule_GetState(module));
  if (state != nullptr) {
    Py_VISIT(state->greenlet_type);
    Py_VISIT(state->error);
    Py_VISIT(state->greenlet_exit);
    Py_VISIT(state->final_exit);
    Py_VISIT(state->capi);
    Py_VISIT(state->tracer);
    Py_VISIT(state->collected_callback);
  }
  return 0;
}

int clear(PyObject* module) {
  auto* const state = static_cast<ModuleState*>(PyModule_GetState(module));
  if (state != nullptr) {
    Py_CLEAR(state->greenlet_type);
    Py_CLEAR(state->error);
    Py_CLEAR(state->greenlet_exit);
    Py_CLEAR(state->final_exit);
    Py_CLEAR(state->capi);
    Py_CLEAR(state->tracer);
    Py_CLEAR(state->collected_callback);
    Py_CLEAR(state->run_name);
    Py_CLEAR(state->empty_tuple);
  }
  return 0;
}

void free_module(void* module) { clear(static_cast<PyObject*>(module)); }

// The module that owns the state, one in each interpreter. No code imports it; see create().
PyModuleDef owner_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "greenlet._greenlet",
    .m_doc = nullptr,
    .m_size = sizeof(ModuleState),
    .m_methods = functions,
    .m_slots = nullptr,
    .m_traverse = &traverse,
    .m_clear = &clear,
    .m_free = &free_module,
};

// --- creation -------------------------------------------------------------------------------

// The lock for finding and making the owner: one thread of the process at a time. It is needed
// because the type is static in the main interpreter, and because PyInterpreterState_GetDict()
// makes the dict without a lock. The thread that holds it runs no Python code, so it never takes it
// twice. It is no mutex, because a fork may leave it held: the child then takes it from the parent.
class CreationLock {
 public:
  // Waits, detached. False with an exception set if the interpreter is finalizing, because then the
  // thread that holds the lock may have been stopped for good.
  bool take() noexcept {
    const pid_t process = platform::process_id();
    for (;;) {
      pid_t found = 0;
      // If another process has it, this is a child, and the thread that has it is not here.
      if (process_.compare_exchange_strong(found, process) ||
          (found != process && process_.compare_exchange_strong(found, process))) {
        taken_ = true;
        return true;
      }
      if (cpython::is_finalizing()) {
        PyErr_SetString(PyExc_ImportError, "greenlet is being imported already");
        return false;
      }
      Py_BEGIN_ALLOW_THREADS  // the other thread needs little time, and there seldom is one
      platform::pause(100'000);
      Py_END_ALLOW_THREADS
    }
  }
  ~CreationLock() {
    if (taken_) {
      process_.store(0);
    }
  }
  CreationLock() = default;
  CreationLock(const CreationLock&) = delete;
  CreationLock& operator=(const CreationLock&) = delete;

 private:
  static constinit inline std::atomic<pid_t> process_{0};  // the one whose thread has it, or 0
  bool taken_ = false;
};

// The module that owns the state, borrowed; it lives as long as the interpreter. Null with an
// exception set on failure. Runs no Python code.
PyObject* find_or_make_owner() {
  const cpython::NoCollection no_finalizers;
  CreationLock lock;
  if (!lock.take()) {
    return nullptr;
  }
  if (PyObject* const owner = ModuleState::registered_module();
      owner != nullptr || PyErr_Occurred() != nullptr) {
    return owner;
  }
  const Ref owner = Ref::take(PyModule_Create(&owner_definition));
  if (!owner || fill(owner.get()) < 0 || !ModuleState::register_module(owner.get())) {
    return nullptr;
  }
  if (!PyType_HasFeature(ModuleState::of(owner.get()).greenlet_type, Py_TPFLAGS_HEAPTYPE)) {
    Py_INCREF(owner.get());  // for the type: a static type cannot own the module, and never ends
  }
  return owner.get();
}

// Makes the module complete. Nothing is left to do when importlib executes it, because memory
// profilers call settrace() before that. importlib gets a view, a module without a state. Programs
// remove modules from sys.modules and import them again, and must find the same type and the same
// exceptions. So all views show the names of one module, the owner of the state.
PyObject* create(PyObject* spec, PyModuleDef*) {
  if (read_stack_environment() < 0) {
    return nullptr;
  }
  PyObject* const owner = find_or_make_owner();
  if (owner == nullptr) {
    return nullptr;
  }
  if (cpython::interpreter_may_end_elsewhere(cpython::current_thread_state())) {
    core::hook_exit(ModuleState::of(owner));
  }
  const Ref name = Ref::take(PyObject_GetAttrString(spec, "name"));
  Ref view = Ref::take(name ? PyModule_NewObject(name.get()) : nullptr);
  // The view keeps its own __name__, __spec__, __loader__.
  if (!view || PyDict_Merge(PyModule_GetDict(view.get()), PyModule_GetDict(owner), 0) < 0 ||
      ThreadRegistry::current() == nullptr) {
    return nullptr;
  }
  return view.release();
}

PyModuleDef_Slot slots[] = {
    {Py_mod_create, reinterpret_cast<void*>(&create)},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef view_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "greenlet._greenlet",
    .m_doc = nullptr,
    .m_size = 0,
    .m_methods = nullptr,
    .m_slots = slots,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace
}  // namespace greenlet::module

PyMODINIT_FUNC PyInit__greenlet() {
  using greenlet::module::owner_definition;
  using greenlet::module::view_definition;
  // owner_definition is initialized here, because several interpreters may call PyModule_Create()
  // at the same time.
  return PyModuleDef_Init(&owner_definition) == nullptr ? nullptr
                                                        : PyModuleDef_Init(&view_definition);
}
