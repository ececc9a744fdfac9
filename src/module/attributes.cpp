// The attributes of greenlets: arguments and errors. The values come from core/.
#include "module/attributes.h"

#include "core/greenlet.h"
#include "core/inspection.h"
#include "core/listing.h"
#include "core/thread_registry.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::Ref;
using core::State;
using core::Thread;
using core::ThreadRegistry;

PyObject* or_none(Ref object) { return object ? object.release() : Py_NewRef(Py_None); }

PyObject* get_dict(PyObject* self, void*) { return PyObject_GenericGetDict(self, nullptr); }

int set_dict(PyObject* self, PyObject* value, void*) {
  if (value == nullptr) {
    PyErr_SetString(PyExc_TypeError, "__dict__ may not be deleted");
    return -1;
  }
  if (!PyDict_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "__dict__ must be a dictionary");
    return -1;
  }
  return PyObject_GenericSetDict(self, value, nullptr);
}

PyObject* get_run(PyObject* self, void*) {
  const Greenlet& greenlet = Greenlet::of(self);
  if (greenlet.is_main()) {
    PyErr_SetString(PyExc_AttributeError, kNoRunOfMain);
    return nullptr;
  }
  Ref run = greenlet.run();
  if (!run) {
    PyErr_SetString(PyExc_AttributeError, "run");
  }
  return run.release();
}

int set_run_attribute(PyObject* self, PyObject* value, void*) {
  return set_run(Greenlet::of(self), value);
}

PyObject* get_parent(PyObject* self, void*) { return or_none(Greenlet::of(self).parent()); }

int set_parent_attribute(PyObject* self, PyObject* value, void*) {
  return set_parent(Greenlet::of(self), value);
}

PyObject* get_frame(PyObject* self, void*) {
  return or_none(core::innermost_frame(Greenlet::of(self)));
}

PyObject* get_context(PyObject* self, void*) {
  Ref context;
  if (!core::get_context(Greenlet::of(self), context)) {
    PyErr_SetString(PyExc_ValueError,
                    "cannot get context of a greenlet that is running in a different thread");
    return nullptr;
  }
  return or_none(std::move(context));
}

int set_context(PyObject* self, PyObject* value, void*) {
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "can't delete context attribute");
    return -1;
  }
  if (value != Py_None && !PyContext_CheckExact(value)) {
    PyErr_SetString(PyExc_TypeError, "greenlet context must be a contextvars.Context or None");
    return -1;
  }
  Ref context = Ref::share(value == Py_None ? nullptr : value);
  if (!core::exchange_context(Greenlet::of(self), context)) {
    PyErr_SetString(PyExc_ValueError,
                    "cannot set context of a greenlet that is running in a different thread");
    return -1;
  }
  return 0;
}

PyObject* get_dead(PyObject* self, void*) {
  return PyBool_FromLong(Greenlet::of(self).appears_dead());
}

PyObject* get_stack_saved(PyObject* self, void*) {
  const Greenlet& greenlet = Greenlet::of(self);
  return PyLong_FromSize_t(core::stack_in_use(greenlet));
}

PyDoc_STRVAR(
    kRunDoc,
    "What the first switch calls. It can be set and deleted until then, and is gone\n"
    "afterwards.\n"
    "\n"
    "To read it when it is gone or was never set, to set it after the start, or to set that\n"
    "of a main greenlet raises AttributeError.");
PyDoc_STRVAR(
    kParentDoc,
    "The greenlet that goes on when this one finishes. None only for a main greenlet.\n"
    "\n"
    "It can be set at any time: ValueError if this makes a cycle, or if this greenlet has\n"
    "started and the other one is of another thread; TypeError if the other one is no\n"
    "greenlet; AttributeError for a main greenlet, and if it is deleted.");
PyDoc_STRVAR(kFrameDoc,
             "The innermost frame of a suspended greenlet; None for any other.\n"
             "\n"
             "Its f_back leads through all frames of the greenlet. It may be read from other\n"
             "threads.");
PyDoc_STRVAR(
    kContextDoc,
    "The contextvars.Context in which it runs; None while it has none.\n"
    "\n"
    "A new greenlet has none; CPython makes an empty one when a variable is set, or the\n"
    "context is copied. It can be set, also to None: TypeError for anything else.\n"
    "ValueError, also to read it, while the greenlet runs in another thread. It cannot be\n"
    "deleted: AttributeError.");
PyDoc_STRVAR(kDeadDoc, "Whether it has finished, or the thread that it has started in has ended.");
PyDoc_STRVAR(kStackSavedDoc,
             "How many bytes of C stack it uses while it is suspended; otherwise 0.\n"
             "\n"
             "Of a main greenlet, the bytes since its thread first used greenlets, or 1 if the\n"
             "thread has returned from there: its whole stack is the thread's.");

}  // namespace

PyGetSetDef attributes[] = {
    {"__dict__", &get_dict, &set_dict, nullptr, nullptr},
    {"run", &get_run, &set_run_attribute, kRunDoc, nullptr},
    {"parent", &get_parent, &set_parent_attribute, kParentDoc, nullptr},
    {"gr_frame", &get_frame, nullptr, kFrameDoc, nullptr},
    {"gr_context", &get_context, &set_context, kContextDoc, nullptr},
    {"dead", &get_dead, nullptr, kDeadDoc, nullptr},
    {"_stack_saved", &get_stack_saved, nullptr, kStackSavedDoc, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyObject* repr(PyObject* self) {
  const Greenlet& greenlet = Greenlet::of(self);
  const Ref held = greenlet.thread_representative();
  const Greenlet& representative = Greenlet::of(held.get());
  const char* description = nullptr;
  switch (greenlet.is_finishing() ? State::kDead : greenlet.state()) {
    case State::kNew:
      description = " pending";
      break;
    case State::kRunning: {
      const Thread* const thread = ThreadRegistry::current_or_null();
      const bool current = thread != nullptr && greenlet.thread() == thread;
      description = current ? " current active started" : " suspended active started";
      break;
    }
    case State::kSuspended:
      description = " suspended active started";
      break;
    case State::kDead:
      description = representative.state() == State::kAbandoned ? " (thread exited) dead" : " dead";
      break;
    case State::kAbandoned:
      description = greenlet.thread() == nullptr ? " (thread exited) dead" : " dead";
      break;
  }
  const bool living_main = greenlet.is_main() && greenlet.is_active();
  const char* const main = living_main ? " main" : "";
  void* const thread = representative.thread();
  if (const Ref name = core::name_of(greenlet)) {
    return PyUnicode_FromFormat("<%s object at %p (otid=%p)%s%s name=%R>", Py_TYPE(self)->tp_name,
                                self, thread, description, main, name.get());
  }
  return PyUnicode_FromFormat("<%s object at %p (otid=%p)%s%s>", Py_TYPE(self)->tp_name, self,
                              thread, description, main);
}

}  // namespace greenlet::module
