// Operations on greenlets: checks of arguments, and the errors for them.
#include "module/operations.h"

#include "core/collection.h"
#include "core/hints.h"
#include "core/inspection.h"
#include "core/killing.h"
#include "core/listing.h"
#include "core/thread_registry.h"
#include "core/thread_stack.h"
#include "core/timeline.h"
#include "cpython/errors.h"
#include "cpython/thread_states.h"

namespace greenlet::module {

using core::Greenlet;
using core::Message;
using core::Ref;
using core::Thread;
using core::ThreadRegistry;

namespace {

// True, with the TypeError of object.__new__() set, if the class has abstract methods.
bool is_refused_as_abstract(PyTypeObject* type, PyObject* no_arguments) {
  if (!PyType_HasFeature(type, Py_TPFLAGS_IS_ABSTRACT)) [[likely]] {
    return false;
  }
  // It makes an object if another thread has just defined the methods.
  const Ref made = Ref::take(PyBaseObject_Type.tp_new(type, no_arguments, nullptr));
  return !made;
}

// Notes where a greenlet is made, if it could be made.
[[gnu::cold, gnu::noinline]] PyObject* with_origin(PyObject* made) {
  if (made != nullptr) {
    core::note_origin(Greenlet::of(made));
  }
  return made;
}

}  // namespace

PyObject* new_greenlet(PyTypeObject* type, PyObject* /*args*/, PyObject* /*kwargs*/) {
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr || is_refused_as_abstract(type, thread->empty_tuple())) {
    return nullptr;
  }
  core::kill_dropped(*thread);
  Greenlet& running = thread->running();
  core::adopt_finalizer(type, running.module());
  PyObject* const made = Greenlet::create(type, &running.module(), running.object()).release();
  return thread->notes_origin() ? with_origin(made) : made;
}

PyObject* get_current() {
  // A part of what CPython tears down then is gone. Switches still work, for finally blocks.
  if (cpython::is_finalizing()) {
    (void)PyThreadState_Get();  // ends the process with a text if there is no thread state
    PyErr_SetString(PyExc_RuntimeError, "greenlet is being finalized");
    return nullptr;
  }
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr) {
    return nullptr;
  }
  core::kill_dropped(*thread);
  return Py_NewRef(thread->running().object());
}

PyObject* send(Greenlet& target, Message message, const core::Operands& operands) {
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr || !core::prepare_to_switch(*thread)) {
    return nullptr;
  }
  return thread->deliver(target, std::move(message), operands);
}

PyObject* throw_into(Greenlet& target, PyObject* type, PyObject* value, PyObject* traceback,
                     const core::Operands& operands) {
  if (value == Py_None) {
    value = nullptr;
  }
  if (traceback == Py_None) {
    traceback = nullptr;
  }
  if (traceback != nullptr && !PyTraceBack_Check(traceback)) {
    PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
    return nullptr;
  }
  Ref exception;
  if (PyExceptionInstance_Check(type)) {
    if (value != nullptr) {
      PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
      return nullptr;
    }
    exception = Ref::share(type);
  } else if (!PyExceptionClass_Check(type)) {
    PyErr_Format(PyExc_TypeError, "exceptions must be classes, or instances, not %s",
                 Py_TYPE(type)->tp_name);
    return nullptr;
  } else if (value != nullptr && PyObject_TypeCheck(value, reinterpret_cast<PyTypeObject*>(type))) {
    exception = Ref::share(value);
  } else {
    // Makes the instance. If that fails, the error is raised instead.
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), nullptr);
    exception = Ref::take(cpython::take_exception());
  }
  if (traceback != nullptr && PyException_SetTraceback(exception.get(), traceback) < 0) {
    return nullptr;
  }
  // As send(), without moving the message once more.
  Thread* const thread = ThreadRegistry::current();
  if (thread == nullptr || !core::prepare_to_switch(*thread)) {
    return nullptr;
  }
  return thread->deliver(target, Message::exception(std::move(exception)), operands);
}

int initialize(Greenlet& greenlet, PyObject* run, PyObject* parent) {
  if (run != nullptr && set_run(greenlet, run) < 0) {
    return -1;
  }
  return parent != nullptr && parent != Py_None ? set_parent(greenlet, parent) : 0;
}

int set_run(Greenlet& greenlet, PyObject* value) {
  if (greenlet.is_main()) {
    PyErr_SetString(PyExc_AttributeError, kNoRunOfMain);
    return -1;
  }
  if (!greenlet.set_run(Ref::share(value))) {
    PyErr_SetString(PyExc_AttributeError, "run cannot be set after the start of the greenlet");
    return -1;
  }
  return 0;
}

int set_parent(Greenlet& greenlet, PyObject* value) {
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "can't delete attribute");
    return -1;
  }
  if (greenlet.is_main()) {
    PyErr_SetString(PyExc_AttributeError, "cannot set the parent of a main greenlet");
    return -1;
  }
  if (!PyObject_TypeCheck(value, greenlet.module().greenlet_type)) {
    PyErr_Format(PyExc_TypeError, "GreenletChecker: Expected any type of greenlet, not %s",
                 Py_TYPE(value)->tp_name);
    return -1;
  }
  if (greenlet.is_started() && core::thread_of(greenlet) != core::thread_of(Greenlet::of(value))) {
    PyErr_SetString(PyExc_ValueError, "parent cannot be on a different thread");
    return -1;
  }
  Ref parent = Ref::share(value);
  if (!greenlet.exchange_parent(parent)) {
    PyErr_SetString(PyExc_ValueError, "cyclic parent chain");
    core::add_hint("cyclic_parents", greenlet.object(), value);
    return -1;
  }
  if (const Thread* const thread = ThreadRegistry::current_or_null();
      (thread == nullptr || &thread->running() != &Greenlet::of(value)) &&
      !Greenlet::of(value).is_scheduler()) {
    Greenlet::of(value).set_scheduler();
    core::Timeline::note_scheduler(Greenlet::of(value));
  }
  return 0;
}

}  // namespace greenlet::module
