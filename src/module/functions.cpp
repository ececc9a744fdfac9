// The functions of the module but those about stacks: the running greenlet, tracing, counts.
#include "module/functions.h"

#include "core/module_state.h"
#include "core/thread_registry.h"
#include "core/tracing.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::ModuleState;
using core::Ref;
using core::Thread;
using core::ThreadRegistry;

PyObject* getcurrent(PyObject*, PyObject*) { return get_current(); }

PyObject* settrace(PyObject* module, PyObject* args, PyObject* kwargs) {
  static const char* const names[] = {"", "all_threads", nullptr};
  PyObject* callback;
  int all_threads = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:settrace", const_cast<char**>(names),
                                   &callback, &all_threads)) {
    return nullptr;
  }
  if (all_threads != 0) {
    Ref old = core::exchange_tracer_of_all(ModuleState::of(module),
                                           callback == Py_None ? Ref() : Ref::share(callback));
    return old ? old.release() : Py_NewRef(Py_None);
  }
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr) {
    return nullptr;
  }
  Ref old = thread->exchange_tracer(callback == Py_None ? Ref() : Ref::share(callback));
  return old ? old.release() : Py_NewRef(Py_None);
}

PyObject* gettrace(PyObject*, PyObject*) {
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr) {
    return nullptr;
  }
  PyObject* const callback = thread->tracer().callback();
  return Py_NewRef(callback != nullptr ? callback : Py_None);
}

PyObject* get_pending_cleanup_count(PyObject* module, PyObject*) {
  return PyLong_FromSsize_t(ModuleState::of(module).queued_greenlets);
}

PyObject* get_total_main_greenlets(PyObject* module, PyObject*) {
  return PyLong_FromSsize_t(ModuleState::of(module).main_greenlets);
}

PyObject* enable_optional_cleanup(PyObject* module, PyObject* flag) {
  const int enabled = PyObject_IsTrue(flag);
  if (enabled < 0) {
    return nullptr;
  }
  ModuleState::of(module).counts_cleanup_clocks = enabled != 0;
  Py_RETURN_NONE;
}

PyObject* get_clocks_used_doing_optional_cleanup(PyObject* module, PyObject*) {
  if (!ModuleState::of(module).counts_cleanup_clocks) {
    Py_RETURN_NONE;
  }
  return PyLong_FromLong(0);
}

PyDoc_STRVAR(kGetcurrentDoc,
             "getcurrent($module, /)\n"
             "--\n"
             "\n"
             "Return the running greenlet of this thread. At first that is its main greenlet.\n"
             "\n"
             "RuntimeError while the interpreter finalizes.");
PyDoc_STRVAR(
    kSettraceDoc,
    "settrace($module, callback, /, *, all_threads=False)\n"
    "--\n"
    "\n"
    "Set the trace callback of this thread, and return the one that was set before, or\n"
    "None.\n"
    "\n"
    "None removes it. With all_threads it is the callback of all threads of the interpreter\n"
    "that have none of their own, from their next switch on, and of threads that use\n"
    "greenlets later.\n"
    "\n"
    "After each switch it is called in the target: callback(event, (origin, target)). The\n"
    "event is 'switch', or 'throw' if an exception was thrown. If the callback raises, it\n"
    "is removed (for that thread), and the exception is raised in the target.");
PyDoc_STRVAR(kGettraceDoc,
             "gettrace($module, /)\n"
             "--\n"
             "\n"
             "Return the trace callback of this thread, or None.");
PyDoc_STRVAR(
    kPendingDoc,
    "get_pending_cleanup_count($module, /)\n--\n\n"
    "Return how many greenlets have lost their last reference in another thread, and wait\n"
    "for their own thread to end them.");
PyDoc_STRVAR(
    kMainsDoc,
    "get_total_main_greenlets($module, /)\n--\n\n"
    "Return how many threads of this interpreter have a main greenlet: those that have used\n"
    "greenlets.");

}  // namespace

PyMethodDef functions[] = {
    {"getcurrent", &getcurrent, METH_NOARGS, kGetcurrentDoc},
    {"settrace", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&settrace)),
     METH_VARARGS | METH_KEYWORDS, kSettraceDoc},
    {"gettrace", &gettrace, METH_NOARGS, kGettraceDoc},
    {"get_pending_cleanup_count", &get_pending_cleanup_count, METH_NOARGS, kPendingDoc},
    {"get_total_main_greenlets", &get_total_main_greenlets, METH_NOARGS, kMainsDoc},
    {"enable_optional_cleanup", &enable_optional_cleanup, METH_O,
     "enable_optional_cleanup($module, enabled, /)\n--\n\n"
     "Kept for compatibility: sets what get_clocks_used_doing_optional_cleanup() returns."},
    {"get_clocks_used_doing_optional_cleanup", &get_clocks_used_doing_optional_cleanup, METH_NOARGS,
     "get_clocks_used_doing_optional_cleanup($module, /)\n--\n\n"
     "Kept for compatibility: return 0, or None after enable_optional_cleanup(False)."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace greenlet::module
