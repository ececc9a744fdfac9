// The extension module greenlet._greenlet: its functions, and how it comes to be.
#include <Python.h>

#include <ctime>
#include <new>

#include "core/module_state.h"
#include "core/thread.h"
#include "cpython/layout.h"
#include "cpython/objects.h"
#include "cpython/stack_bounds.h"
#include "cpython/thread_anchors.h"
#include "module/capi.h"
#include "module/greenlet_type.h"
#include "stack/stack.h"

namespace greenlet {
namespace core {
namespace {

// In the interpreter's own dict: the module object whose state serves the interpreter.
constexpr const char* kModuleKey = "greenlet._greenlet";

PyObject* loaded_module() {             // borrowed; null without an exception if there is none
  const cpython::ExceptionAside aside;  // which it would clear if memory runs out
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  return dict == nullptr ? nullptr : PyDict_GetItemString(dict, kModuleKey);
}

}  // namespace

ModuleState* ModuleState::of_interpreter_or_null() noexcept {
  PyObject* const module = loaded_module();
  return module == nullptr ? nullptr : static_cast<ModuleState*>(PyModule_GetState(module));
}

ModuleState* ModuleState::of_interpreter() noexcept {
  ModuleState* const state = of_interpreter_or_null();
  if (state == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is not loaded in this interpreter");
  }
  return state;
}

}  // namespace core

namespace module {
namespace {

using core::ModuleState;
using core::Ref;
using core::Thread;

ModuleState& state_of(PyObject* module) {
  return *static_cast<ModuleState*>(PyModule_GetState(module));
}

// --- functions ------------------------------------------------------------------------------

PyObject* getcurrent(PyObject*, PyObject*) { return Thread::getcurrent(); }

PyObject* settrace(PyObject*, PyObject* args) {
  PyObject* callback;
  if (!PyArg_ParseTuple(args, "O", &callback)) {
    return nullptr;
  }
  Thread* const thread = Thread::current();
  if (thread == nullptr) {
    return nullptr;
  }
  Ref old = thread->exchange_tracer(callback == Py_None ? Ref() : Ref::share(callback));
  return old ? old.release() : Py_NewRef(Py_None);
}

PyObject* gettrace(PyObject*, PyObject*) {
  Thread* const thread = Thread::current();
  if (thread == nullptr) {
    return nullptr;
  }
  return Py_NewRef(thread->tracer() != nullptr ? thread->tracer() : Py_None);
}

PyObject* get_pending_cleanup_count(PyObject* module, PyObject*) {
  return PyLong_FromSsize_t(state_of(module).pending_greenlets);
}

PyObject* get_total_main_greenlets(PyObject* module, PyObject*) {
  return PyLong_FromSsize_t(state_of(module).main_greenlets);
}

PyObject* enable_optional_cleanup(PyObject* module, PyObject* flag) {
  const int enabled = PyObject_IsTrue(flag);
  if (enabled < 0) {
    return nullptr;
  }
  state_of(module).counts_cleanup_clocks = enabled != 0;
  Py_RETURN_NONE;
}

PyObject* get_clocks_used_doing_optional_cleanup(PyObject* module, PyObject*) {
  if (!state_of(module).counts_cleanup_clocks) {
    Py_RETURN_NONE;
  }
  return PyLong_FromLong(0);
}

PyObject* stack_default_size(PyObject*, PyObject*) {
  return PyLong_FromSize_t(stack::default_size());
}

// A count of bytes or regions from Python; false with an exception set.
bool as_size(PyObject* value, std::size_t& size) {
  size = PyLong_AsSize_t(value);
  if (PyErr_Occurred() == nullptr) {
    return true;
  }
  if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
    PyErr_Format(PyExc_ValueError, "%R is out of range", value);
  }
  return false;
}

PyObject* set_stack_default_size(PyObject*, PyObject* value) {
  std::size_t bytes;
  if (!as_size(value, bytes)) {
    return nullptr;
  }
  if (!stack::set_default_size(bytes)) {
    return PyErr_Format(PyExc_ValueError, "a stack of %zu bytes is out of range", bytes);
  }
  Py_RETURN_NONE;
}

PyObject* stack_pool_bound(PyObject*, PyObject*) { return PyLong_FromSize_t(stack::pool_bound()); }

PyObject* set_stack_pool_bound(PyObject*, PyObject* value) {
  std::size_t regions;
  if (!as_size(value, regions)) {
    return nullptr;
  }
  stack::set_pool_bound(regions);
  Py_RETURN_NONE;
}

PyObject* stack_statistics(PyObject*, PyObject*) {
  const stack::Statistics statistics = stack::statistics();
  return Py_BuildValue("(nnn)", statistics.reserved, statistics.in_use, statistics.pooled);
}

PyObject* stack_resident_bytes(PyObject*, PyObject*) {
  std::size_t bytes;
  Py_BEGIN_ALLOW_THREADS  // looks at every page
  bytes = stack::resident_bytes();
  Py_END_ALLOW_THREADS
  return PyLong_FromSize_t(bytes);
}

PyObject* trim_stacks(PyObject*, PyObject*) { return PyLong_FromSize_t(Thread::trim()); }

PyDoc_STRVAR(kGetcurrentDoc,
             "getcurrent()\n\nThe running greenlet of this thread; its main greenlet at first.");
PyDoc_STRVAR(kSettraceDoc,
             "settrace(callback, /)\n"
             "\n"
             "Have callback(event, (origin, target)) called in the target after each switch of\n"
             "this thread, event being 'switch' or 'throw'; None removes it. Returns the previous\n"
             "one. If it raises, it is removed and the exception is raised in the target.");
PyDoc_STRVAR(kGettraceDoc, "gettrace()\n\nThe trace callback of this thread, or None.");
PyDoc_STRVAR(kPendingDoc,
             "get_pending_cleanup_count()\n\n"
             "Greenlets whose last reference went away in another thread than their own, which\n"
             "has not ended them yet.");
PyDoc_STRVAR(
    kMainsDoc,
    "get_total_main_greenlets()\n\nThreads of this interpreter that have a main greenlet.");

PyMethodDef functions[] = {
    {"getcurrent", &getcurrent, METH_NOARGS, kGetcurrentDoc},
    {"settrace", &settrace, METH_VARARGS, kSettraceDoc},
    {"gettrace", &gettrace, METH_NOARGS, kGettraceDoc},
    {"get_pending_cleanup_count", &get_pending_cleanup_count, METH_NOARGS, kPendingDoc},
    {"get_total_main_greenlets", &get_total_main_greenlets, METH_NOARGS, kMainsDoc},
    {"enable_optional_cleanup", &enable_optional_cleanup, METH_O,
     "enable_optional_cleanup(enabled, /)\n\nKept for compatibility; see the function below."},
    {"get_clocks_used_doing_optional_cleanup", &get_clocks_used_doing_optional_cleanup, METH_NOARGS,
     "get_clocks_used_doing_optional_cleanup()\n\n"
     "0, as there is no such work here; None after enable_optional_cleanup(False)."},
    {"_stack_default_size", &stack_default_size, METH_NOARGS, nullptr},
    {"_set_stack_default_size", &set_stack_default_size, METH_O, nullptr},
    {"_stack_pool_bound", &stack_pool_bound, METH_NOARGS, nullptr},
    {"_set_stack_pool_bound", &set_stack_pool_bound, METH_O, nullptr},
    {"_stack_statistics", &stack_statistics, METH_NOARGS, nullptr},
    {"_stack_resident_bytes", &stack_resident_bytes, METH_NOARGS, nullptr},
    {"_trim_stacks", &trim_stacks, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

// --- module ---------------------------------------------------------------------------------

// These names of the module are attributes of the type as well.
constexpr const char* kSharedWithType[] = {"GreenletExit", "error", "getcurrent", "settrace",
                                           "gettrace"};

// Reads them off a class with __del__.
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

// The method __reduce__ of the class ModuleState::final_exit, which has no name that others could
// import: copies and pickles are plain instances of its base class GreenletExit.
PyObject* reduce_final_exit(PyObject*, PyObject* self) {
  const Ref reduced = Ref::take(PyObject_CallMethod(PyExc_BaseException, "__reduce__", "O", self));
  if (!reduced) {
    return nullptr;
  }
  const Ref rest = Ref::take(PySequence_GetSlice(reduced.get(), 1, PY_SSIZE_T_MAX));
  const core::ModuleState* const state = core::ModuleState::of_interpreter();
  const Ref base = Ref::take(state != nullptr ? PyTuple_Pack(1, state->greenlet_exit) : nullptr);
  return rest && base ? PySequence_Concat(base.get(), rest.get()) : nullptr;
}

PyObject* make_final_exit(PyObject* greenlet_exit) {
  static PyMethodDef reduce = {"__reduce__", &reduce_final_exit, METH_O, nullptr};
  // A function in C is bound to an instance only if it is made an instance method.
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
  state.error = PyErr_NewExceptionWithDoc(
      "greenlet.error", "A switch that cannot be: to another thread's greenlet, for instance.",
      nullptr, nullptr);
  state.greenlet_exit = PyErr_NewExceptionWithDoc(
      "greenlet.GreenletExit",
      "Ends the greenlet it is raised in, quietly: its parent gets it as a value.",
      PyExc_BaseException, nullptr);
  if (state.error == nullptr || state.greenlet_exit == nullptr ||
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
    // The type is immutable for Python code, and nobody has looked at it yet.
    if (!value || PyDict_SetItemString(state.greenlet_type->tp_dict, name, value.get()) < 0) {
      return -1;
    }
  }
  PyType_Modified(state.greenlet_type);
  return 0;
}

// Programs drop modules from sys.modules and import them again; they must find the same type and
// the same exceptions, so a second module object is only another view of the first.
int share(PyObject* loaded, PyObject* module) {
  PyObject *name, *value;
  for (Py_ssize_t i = 0; PyDict_Next(PyModule_GetDict(loaded), &i, &name, &value);) {
    const bool own = PyObject_HasAttr(module, name) && PyUnicode_ReadChar(name, 0) == '_' &&
                     PyUnicode_ReadChar(name, 1) == '_';  // __name__, __spec__, __loader__, ...
    if (!own && PyObject_SetAttr(module, name, value) < 0) {
      return -1;
    }
  }
  return 0;
}

int make(PyObject* module) {
  if (cpython::check_layout() < 0) {
    return -1;
  }
  cpython::watch_new_thread_states(&Thread::find_stack);
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
      PyModule_AddStringConstant(module, "__version__", GREENLET_VERSION_STRING) < 0 ||
      PyModule_AddIntConstant(module, "CLOCKS_PER_SEC", CLOCKS_PER_SEC) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_GC", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_TRACING", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_CONTEXT_VARS", 1) < 0) {
    return -1;
  }
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  if (dict == nullptr || PyDict_SetItemString(dict, core::kModuleKey, module) < 0) {
    return -1;
  }
  if (!PyType_HasFeature(state.greenlet_type, Py_TPFLAGS_HEAPTYPE)) {
    Py_INCREF(module);  // for the type: a static one has no place for it, nor an end
  }
  if (cpython::may_be_left_behind(cpython::current_thread_state())) {
    Thread::watch_exit(state);
  }
  return Thread::current() != nullptr ? 0 : -1;
}

int exec(PyObject* module) {
  if (PyObject* const loaded = core::loaded_module()) {
    return share(loaded, module);
  }
  // Under another name it may be imported in another thread, or by a finalizer in this one.
  static constinit std::atomic<bool> is_being_made{false};
  const bool is_main = PyInterpreterState_Get() == PyInterpreterState_Main();
  if (is_main && is_being_made.exchange(true)) {
    PyErr_SetString(PyExc_ImportError, "greenlet is being imported already");
    return -1;
  }
  const int result = make(module);
  if (is_main) {
    is_being_made = false;
  }
  return result;
}

int traverse(PyObject* module, visitproc visit, void* arg) {
  auto* const state = static_cast<ModuleState*>(PyModule_GetState(module));
  if (state != nullptr) {
    Py_VISIT(state->greenlet_type);
    Py_VISIT(state->error);
    Py_VISIT(state->greenlet_exit);
    Py_VISIT(state->final_exit);
    Py_VISIT(state->capi);
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
    Py_CLEAR(state->run_name);
    Py_CLEAR(state->empty_tuple);
  }
  return 0;
}

void free_module(void* module) { clear(static_cast<PyObject*>(module)); }

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&exec)},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "greenlet._greenlet",
    .m_doc = nullptr,
    .m_size = sizeof(ModuleState),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = &traverse,
    .m_clear = &clear,
    .m_free = &free_module,
};

}  // namespace
}  // namespace module
}  // namespace greenlet

PyMODINIT_FUNC PyInit__greenlet() { return PyModuleDef_Init(&greenlet::module::definition); }
