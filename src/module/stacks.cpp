// The functions that greenlet.stacks wraps: sizes, the pool, statistics, trimming, and the call on
// the thread's own stack.
#include "module/stacks.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/freezing.h"
#include "core/greenlet.h"
#include "core/module_state.h"
#include "core/sweep.h"
#include "core/thread_stack.h"
#include "stack/stack.h"

namespace greenlet::module {
namespace {

using core::Greenlet;

PyObject* stack_default_size(PyObject*, PyObject*) {
  return PyLong_FromSize_t(stack::default_size());
}

// Converts a count from Python. False with an exception set.
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

// The same for the size of a stack, which must be in range.
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

// Returns the size that was chosen before, or None.
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
  const auto& state = core::ModuleState::of(module);
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
  greenlet.set_wanted_stack_bytes(size);
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
  return Py_BuildValue("(nnnn)", statistics.reserved, statistics.in_use, statistics.pooled,
                       core::freezing.frozen.load(std::memory_order_relaxed));
}

PyObject* call_on_thread_stack(PyObject*, PyObject* const* args, Py_ssize_t count,
                               PyObject* names) {
  if (count == 0) {
    PyErr_SetString(PyExc_TypeError, "call_on_thread_stack() needs a function to call");
    return nullptr;
  }
  return core::call_on_thread_stack(args[0], args + 1, static_cast<std::size_t>(count - 1), names);
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

PyObject* trim_stacks(PyObject*, PyObject*) { return PyLong_FromSize_t(core::trim_now()); }

PyObject* is_freezing_on(PyObject*, PyObject*) { return PyBool_FromLong(core::is_freezing_on()); }

PyObject* set_freezing(PyObject*, PyObject* enable) {
  const int enabled = PyObject_IsTrue(enable);
  if (enabled < 0) {
    return nullptr;
  }
  core::freezing.is_on.store(enabled != 0, std::memory_order_relaxed);
  Py_RETURN_NONE;
}

PyObject* freezing_bound(PyObject*, PyObject*) {
  return PyLong_FromSize_t(core::freezing.bound.load(std::memory_order_relaxed));
}

PyObject* set_freezing_bound(PyObject*, PyObject* value) {
  std::size_t bound;
  if (!as_size(value, bound)) {
    return nullptr;
  }
  core::freezing.bound.store(bound, std::memory_order_relaxed);
  Py_RETURN_NONE;
}

PyObject* allow_freezing(PyObject*, PyObject* module) {
  if (!PyUnicode_Check(module)) {
    return PyErr_Format(PyExc_TypeError, "allow_freezing() takes the name of a module, not %.200s",
                        Py_TYPE(module)->tp_name);
  }
  const char* const name = PyUnicode_AsUTF8(module);
  if (name == nullptr) {
    return nullptr;
  }
  return core::allow_freezing(name) ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

PyObject* freeze_stacks(PyObject*, PyObject*) { return PyLong_FromSize_t(core::freeze_now()); }

PyDoc_STRVAR(
    kCallOnThreadStackDoc,
    "call_on_thread_stack($module, function, /, *args, **kwargs)\n"
    "--\n"
    "\n"
    "Call a function on the stack of the OS thread; return what it returns.\n"
    "\n"
    "For code that compares the stack pointer with the bounds of the thread's stack: the JVM,\n"
    "R, V8, Qt's JavaScript, Rust's stacker. A greenlet's own stack lies outside of those\n"
    "bounds. The running greenlet stays the running one, and exceptions pass through. During\n"
    "the call, a switch to another greenlet of this thread, or a throw into one, raises\n"
    "greenlet.error. In a main greenlet, or in such a call, this is an ordinary call.");

}  // namespace

PyMethodDef stack_functions[] = {
    {"_stack_default_size", &stack_default_size, METH_NOARGS,
     "_stack_default_size($module, /)\n--\n\n"},
    {"_set_stack_default_size", &set_stack_default_size, METH_O,
     "_set_stack_default_size($module, size, /)\n--\n\n"},
    {"_set_stack_size", &set_stack_size, METH_VARARGS,
     "_set_stack_size($module, greenlet, size, /)\n--\n\n"},
    {"_stack_pool_bound", &stack_pool_bound, METH_NOARGS, "_stack_pool_bound($module, /)\n--\n\n"},
    {"_set_stack_pool_bound", &set_stack_pool_bound, METH_O,
     "_set_stack_pool_bound($module, bound, /)\n--\n\n"},
    {"_stack_statistics", &stack_statistics, METH_NOARGS, "_stack_statistics($module, /)\n--\n\n"},
    {"call_on_thread_stack",
     reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_on_thread_stack)),
     METH_FASTCALL | METH_KEYWORDS, kCallOnThreadStackDoc},
    {"_stack_resident_bytes", &stack_resident_bytes, METH_NOARGS,
     "_stack_resident_bytes($module, /)\n--\n\n"},
    {"_trim_stacks", &trim_stacks, METH_NOARGS, "_trim_stacks($module, /)\n--\n\n"},
    {"_is_freezing_on", &is_freezing_on, METH_NOARGS, "_is_freezing_on($module, /)\n--\n\n"},
    {"_set_freezing", &set_freezing, METH_O, "_set_freezing($module, enable, /)\n--\n\n"},
    {"_freezing_bound", &freezing_bound, METH_NOARGS, "_freezing_bound($module, /)\n--\n\n"},
    {"_set_freezing_bound", &set_freezing_bound, METH_O,
     "_set_freezing_bound($module, bound, /)\n--\n\n"},
    {"_allow_freezing", &allow_freezing, METH_O, "_allow_freezing($module, name, /)\n--\n\n"},
    {"_freeze_stacks", &freeze_stacks, METH_NOARGS, "_freeze_stacks($module, /)\n--\n\n"},
    {"_report_overflow", &report_overflow, METH_O, "_report_overflow($module, enable, /)\n--\n\n"},
    {nullptr, nullptr, 0, nullptr},
};

int read_stack_environment() {
  // No byte: on riscv64, gcc 11 and 12 would call libatomic.
  static constinit std::atomic<unsigned> was_read{0};
  constexpr const char* kVariable = "GREENLET_STACK_SIZE";
  if (was_read.exchange(1) != 0) {
    return 0;
  }
  if (const char* const report = std::getenv("GREENLET_REPORT_OVERFLOW");
      report != nullptr && std::strcmp(report, "1") == 0) {
    stack::report_overflow(true);
  }
  if (const char* const freezes = std::getenv("GREENLET_FREEZING");
      freezes != nullptr && (std::strcmp(freezes, "0") == 0 || std::strcmp(freezes, "1") == 0)) {
    core::freezing.is_on.store(*freezes == '1', std::memory_order_relaxed);
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

}  // namespace greenlet::module
