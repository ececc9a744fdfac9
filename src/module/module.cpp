// The extension module greenlet._greenlet: its functions, and how it comes to be.
#include <Python.h>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "core/module_state.h"
#include "core/thread.h"
#include "cpython/errors.h"
#include "cpython/gc_protocol.h"
#include "cpython/layout.h"
#include "cpython/stack_bounds.h"
#include "cpython/thread_states.h"
#include "module/capi.h"
#include "module/greenlet_type.h"
#include "platform/process.h"
#include "stack/stack.h"

namespace greenlet {
namespace core {
namespace {

// In the interpreter's own dict: the module object whose state serves the interpreter.
constexpr const char* kModuleKey = "greenlet._greenlet";

// Null if the interpreter has none, or with an exception set. Call it without one.
ModuleState* look_up() noexcept {
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  const Ref key = Ref::take(dict != nullptr ? PyUnicode_FromString(kModuleKey) : nullptr);
  PyObject* const module = key ? PyDict_GetItemWithError(dict, key.get()) : nullptr;
  return module == nullptr ? nullptr : static_cast<ModuleState*>(PyModule_GetState(module));
}

}  // namespace

ModuleState* ModuleState::of_interpreter_or_null() noexcept {
  const cpython::ExceptionAside aside;
  ModuleState* const state = look_up();
  if (state == nullptr) {
    PyErr_Clear();
  }
  return state;
}

ModuleState* ModuleState::of_interpreter() noexcept {
  const cpython::ExceptionAside aside;  // gives way to the one that is set here
  ModuleState* const state = look_up();
  if (state == nullptr && PyErr_Occurred() == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is not loaded in this interpreter");
  }
  return state;
}

}  // namespace core

namespace module {
namespace {

using core::Greenlet;
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

bool as_stack_size(PyObject* value, std::size_t& size) {
  size = PyLong_AsSize_t(value);
  if (PyErr_Occurred() != nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
      return false;
    }
    PyErr_Clear();
    size = 0;
  }
  if (size < stack::kMinSize || size > stack::kMaxSize) {
    PyErr_Format(PyExc_ValueError, "a stack of %R bytes is out of range (%zu to %zu)", value,
                 stack::kMinSize, stack::kMaxSize);
    return false;
  }
  return true;
}

// What was chosen before, or None.
PyObject* set_stack_default_size(PyObject*, PyObject* value) {
  const std::size_t previous = stack::chosen_size();
  std::size_t size;
  if (value == Py_None) {
    stack::unset_default_size();
  } else if (as_stack_size(value, size)) {
    stack::set_default_size(size);
  } else {
    return nullptr;
  }
  return previous != 0 ? PyLong_FromSize_t(previous) : Py_NewRef(Py_None);
}

PyObject* set_stack_size(PyObject* module, PyObject* args) {
  const ModuleState& state = state_of(module);
  PyObject *object, *value;
  std::size_t size = 0;
  if (!PyArg_ParseTuple(args, "O!O", state.greenlet_type, &object, &value) ||
      (value != Py_None && !as_stack_size(value, size))) {
    return nullptr;
  }
  Greenlet& greenlet = Greenlet::of(object);
  if (greenlet.is_started()) {
    PyErr_SetString(PyExc_ValueError, "cannot set the stack size of a greenlet that has started");
    return nullptr;
  }
  greenlet.want_stack_bytes(size);
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

PyObject* call_on_thread_stack(PyObject*, PyObject* const* args, Py_ssize_t count,
                               PyObject* names) {
  if (count == 0) {
    PyErr_SetString(PyExc_TypeError, "call_on_thread_stack() needs a function to call");
    return nullptr;
  }
  return Thread::call_on_thread_stack(args[0], args + 1, static_cast<std::size_t>(count - 1),
                                      names);
}

PyObject* stack_resident_bytes(PyObject*, PyObject*) {
  std::size_t bytes;
  Py_BEGIN_ALLOW_THREADS  // looks at every page
  bytes = stack::resident_bytes();
  Py_END_ALLOW_THREADS
  return PyLong_FromSize_t(bytes);
}

PyObject* report_overflow(PyObject*, PyObject* enable) {
  const int enabled = PyObject_IsTrue(enable);
  if (enabled < 0 || stack::report_overflow(enabled != 0)) {
    return enabled < 0 ? nullptr : Py_NewRef(Py_None);
  }
  return PyErr_SetFromErrno(PyExc_OSError);
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

PyDoc_STRVAR(
    kCallOnThreadStackDoc,
    "call_on_thread_stack($module, function, /, *args, **kwargs)\n"
    "--\n"
    "\n"
    "Call a function on the stack of the OS thread; return what it returns.\n"
    "\n"
    "For code that compares the stack pointer with the bounds of the thread's stack, which\n"
    "a greenlet's own stack is not in: the JVM, R, V8, Qt's JavaScript, Rust's stacker. The\n"
    "running greenlet stays the running one, and exceptions pass through. In the call no\n"
    "greenlet of this thread can be switched to or thrown into: that raises greenlet.error.\n"
    "In a main greenlet, or in such a call, it is an ordinary call.");

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
    {"_set_stack_size", &set_stack_size, METH_VARARGS, nullptr},
    {"_stack_pool_bound", &stack_pool_bound, METH_NOARGS, nullptr},
    {"_set_stack_pool_bound", &set_stack_pool_bound, METH_O, nullptr},
    {"_stack_statistics", &stack_statistics, METH_NOARGS, nullptr},
    {"call_on_thread_stack",
     reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_on_thread_stack)),
     METH_FASTCALL | METH_KEYWORDS, kCallOnThreadStackDoc},
    {"_stack_resident_bytes", &stack_resident_bytes, METH_NOARGS, nullptr},
    {"_trim_stacks", &trim_stacks, METH_NOARGS, nullptr},
    {"_report_overflow", &report_overflow, METH_O, nullptr},
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
  // One after the other: nothing may be made while the MemoryError of another is set.
  state.error = PyErr_NewExceptionWithDoc(
      "greenlet.error", "A switch that cannot be: to another thread's greenlet, for instance.",
      nullptr, nullptr);
  if (state.error == nullptr) {
    return -1;
  }
  state.greenlet_exit = PyErr_NewExceptionWithDoc(
      "greenlet.GreenletExit",
      "Ends the greenlet it is raised in, quietly: its parent gets it as a value.",
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
    // The type is immutable for Python code, and nobody has looked at it yet.
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
      PyModule_AddIntConstant(module, "_STACK_MIN_SIZE", stack::kMinSize) < 0 ||
      PyModule_AddIntConstant(module, "_STACK_MAX_SIZE", stack::kMaxSize) < 0 ||
      PyModule_AddIntConstant(module, "CLOCKS_PER_SEC", CLOCKS_PER_SEC) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_GC", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_TRACING", 1) < 0 ||
      PyModule_AddIntConstant(module, "GREENLET_USE_CONTEXT_VARS", 1) < 0) {
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

// The module that owns the state, one in each interpreter. Nobody imports it; see create().
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

// The right to look for an owner, and to make one: one thread of the process at a time. For the
// type is static in the main interpreter, and PyInterpreterState_GetDict() makes the dict without a
// lock. No Python code runs meanwhile, so a thread that has the right never asks for it again.
// Under one GIL no other thread runs meanwhile, either; else others wait.
class Turn {
 public:
  // Waits, detached; false with an exception set if the program is finalizing, for then the thread
  // whose turn it is may have been stopped for good.
  bool take() noexcept {
    const pid_t process = platform::process_id();
    for (;;) {
      pid_t found = 0;
      // A thread that had it before a fork does not exist in the child.
      if (maker_.compare_exchange_strong(found, process) ||
          (found != process && maker_.compare_exchange_strong(found, process))) {
        taken_ = true;
        return true;
      }
      if (cpython::is_finalizing()) {
        PyErr_SetString(PyExc_ImportError, "greenlet is being imported already");
        return false;
      }
      constexpr useconds_t kMicroseconds = 100;
      Py_BEGIN_ALLOW_THREADS  // others are quick, and seldom there
      usleep(kMicroseconds);
      Py_END_ALLOW_THREADS
    }
  }
  ~Turn() {
    if (taken_) {
      maker_.store(0);
    }
  }
  Turn() = default;
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  static constinit inline std::atomic<pid_t> maker_{0};  // the process whose thread has it, or 0
  bool taken_ = false;
};

// Borrowed, it lasts as long as the interpreter; null with an exception set on failure. Runs no
// Python code.
PyObject* find_or_make_owner() {
  const cpython::NoCollection no_finalizers;
  Turn turn;
  if (!turn.take()) {
    return nullptr;
  }
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  if (dict == nullptr) {
    return PyErr_NoMemory();
  }
  const Ref key = Ref::take(PyUnicode_FromString(core::kModuleKey));
  if (!key) {
    return nullptr;
  }
  if (PyObject* const owner = PyDict_GetItemWithError(dict, key.get());
      owner != nullptr || PyErr_Occurred() != nullptr) {
    return owner;
  }
  const Ref owner = Ref::take(PyModule_Create(&owner_definition));
  if (!owner || fill(owner.get()) < 0 || PyDict_SetItem(dict, key.get(), owner.get()) < 0) {
    return nullptr;
  }
  if (!PyType_HasFeature(state_of(owner.get()).greenlet_type, Py_TPFLAGS_HEAPTYPE)) {
    Py_INCREF(owner.get());  // for the type: a static one has no place for it, nor an end
  }
  return owner.get();
}

// Once in a process: what the environment says of stacks. A warning runs Python code,
// so no other thread may wait for this one here.
int read_environment() {
  static constinit std::atomic<bool> was_read{false};
  constexpr const char* kVariable = "GREENLET_STACK_SIZE";
  if (was_read.exchange(true)) {
    return 0;
  }
  if (const char* const report = std::getenv("GREENLET_REPORT_OVERFLOW");
      report != nullptr && std::strcmp(report, "1") == 0) {
    stack::report_overflow(true);
  }
  const char* const text = std::getenv(kVariable);
  std::size_t size = 0;
  if (text == nullptr || *text == '\0' ||
      (stack::parse_size(text, size) && stack::set_default_size(size))) {
    return 0;
  }
  return PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                          "%s=%.100s is ignored: it must be a number of bytes from %zu to %zu, or "
                          "one with a suffix K, M or G",
                          kVariable, text, stack::kMinSize, stack::kMaxSize);
}

// Makes the module whole, so that nothing is left to do when it is executed: memory profilers call
// settrace() in between. What importlib gets is a view, without state of its own. Programs drop
// modules from sys.modules and import them again; they must find the same type and the same
// exceptions, so all views show the names of one module, the owner of the state.
PyObject* create(PyObject* spec, PyModuleDef*) {
  if (read_environment() < 0) {
    return nullptr;
  }
  PyObject* const owner = find_or_make_owner();
  if (owner == nullptr) {
    return nullptr;
  }
  if (cpython::may_be_left_behind(cpython::current_thread_state())) {
    Thread::watch_exit(state_of(owner));
  }
  const Ref name = Ref::take(PyObject_GetAttrString(spec, "name"));
  Ref view = Ref::take(name ? PyModule_NewObject(name.get()) : nullptr);
  // The view keeps its own __name__, __spec__, __loader__.
  if (!view || PyDict_Merge(PyModule_GetDict(view.get()), PyModule_GetDict(owner), 0) < 0 ||
      Thread::current() == nullptr) {
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
}  // namespace module
}  // namespace greenlet

PyMODINIT_FUNC PyInit__greenlet() {
  using greenlet::module::owner_definition;
  using greenlet::module::view_definition;
  // Here and not first in PyModule_Create(), which several interpreters may call at the same time.
  return PyModuleDef_Init(&owner_definition) == nullptr ? nullptr
                                                        : PyModuleDef_Init(&view_definition);
}
