#include "module/greenlet_type.h"

#include <structmember.h>

#include <cstddef>
#include <optional>

#include "core/greenlet.h"
#include "core/thread.h"
#include "cpython/gc_protocol.h"
#include "cpython/layout.h"
#include "cpython/locks.h"
#include "cpython/objects.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::ModuleState;
using core::Object;
using core::Ref;
using core::State;
using core::Thread;

Object* as_object(PyObject* self) { return reinterpret_cast<Object*>(self); }

// The arguments of a vectorcall as a tuple and (if there are any) a dict of keywords; false with an
// exception set if memory runs out.
bool collect_arguments(PyObject* const* args, Py_ssize_t count, PyObject* names, Ref& positional,
                       Ref& keywords) {
  positional = Ref::take(PyTuple_New(count));
  if (!positional) {
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyTuple_SET_ITEM(positional.get(), i, Py_NewRef(args[i]));
  }
  if (names == nullptr || PyTuple_GET_SIZE(names) == 0) {
    return true;
  }
  keywords = Ref::take(PyDict_New());
  if (!keywords) {
    return false;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    if (PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(names, i), args[count + i]) < 0) {
      return false;
    }
  }
  return true;
}

// --- life cycle -----------------------------------------------------------------------------

// An instance of a heap type owns a reference to the type. True if it is `ours`, the function in
// our type's slot, that has to visit or to drop that reference, and not what has called it:
//
//  - `subtype`, CPython's function for all classes made in Python, stops at the first type upwards
//    that has another one. It leaves the reference to that one if it belongs to a heap type.
//  - A compiled class's own function does it. Such classes are written for the published greenlet,
//    a static type, which never does.
template <typename Function>
bool owns_type_through(PyObject* self, Function PyTypeObject::* slot, Function subtype,
                       Function ours) {
  PyTypeObject* type = Py_TYPE(self);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    return false;
  }
  while (type->*slot == subtype && type->tp_base != nullptr) {
    type = type->tp_base;
  }
  return type->*slot == ours && PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
}

void finalize(PyObject* self);
void finalize_subclass(PyObject* self);

// For another finalization of one that has survived the last, which CPython would not call for.
void prepare_to_finalize(PyObject* self, Greenlet& greenlet) {
  if (const State state = greenlet.state(); state != State::kSuspended && state != State::kNew) {
    return;
  }
  // Its class may have been given a __del__ since the instance was made.
  adopt_finalizer(Py_TYPE(self), greenlet.module());
  const destructor finalizer = Py_TYPE(self)->tp_finalize;
  if (finalizer == &finalize_subclass && PyObject_GC_IsFinalized(self) != 0) {
    greenlet.may_call_del();  // CPython has, before the class was ours, if we have not
  }
  if (finalizer == &finalize || finalizer == &finalize_subclass) {
    cpython::allow_finalizer_again(self);
  }
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  const cpython::Pass pass = cpython::pass_of(self, visit, arg);
  Greenlet* const greenlet = as_object(self)->greenlet;
  if (greenlet == nullptr) {
    return 0;  // tp_alloc() has tracked it, and the control block is being made
  }
  if (pass != cpython::Pass::kDoesNotCount) {
    prepare_to_finalize(self, *greenlet);
    if (pass == cpython::Pass::kRecounts) {
      Thread::hand_over_if_found(*greenlet);
    }
    if (pass == cpython::Pass::kRecounts && greenlet->state() == State::kSuspended) {
      // It has refused, or its thread is yet to end it, or its class's finalizer leaves ours out.
      // If tp_clear came to it and to what its frames use, its finally blocks could never run. The
      // next collection decides again.
      cpython::count_as_used(self);
      greenlet->stack_state().hold_when_marked();
      if (cpython::only_collection_refers_to(self)) {
        // The collection has held the last reference, so what became of it comes out only now.
        Thread::hand_to_owner(*greenlet, Thread::Cause::kDropped);
      }
    }
  }
  if (owns_type_through(self, &PyTypeObject::tp_traverse, greenlet->module().subtype_traverse,
                        &traverse)) {
    Py_VISIT(Py_TYPE(self));
  }
  Py_VISIT(as_object(self)->dict);
  return greenlet->traverse(visit, arg);
}

Thread::Cause cause_of_finalization(PyObject* self) {
  return cpython::is_finalized_for_deallocation(self) ? Thread::Cause::kDropped
                                                      : Thread::Cause::kCollected;
}

void finalize(PyObject* self) {
  if (Greenlet* const greenlet = as_object(self)->greenlet) {  // else there was no memory for it
    Thread::end_unreachable(*greenlet, cause_of_finalization(self));
  }
}

// tp_finalize of subclasses with __del__, which runs first and may bring the greenlet back to life.
void finalize_subclass(PyObject* self) {
  const Py_ssize_t references = Py_REFCNT(self);
  Greenlet* const greenlet = as_object(self)->greenlet;
  if (greenlet == nullptr) {
    return;  // there was no memory for the control block
  }
  const Thread::Cause cause = cause_of_finalization(self);
  if (greenlet->may_call_del()) {
    greenlet->module().slot_tp_finalize(self);
  }
  if (Py_REFCNT(self) <= references) {
    Thread::end_unreachable(*greenlet, cause);
  }
}

int clear(PyObject* self) {
  Greenlet* const greenlet = as_object(self)->greenlet;
  if (greenlet != nullptr && greenlet->state() == State::kSuspended) {
    return 0;  // its class's tp_traverse leaves ours out; so what it refers to is not garbage
  }
  Py_CLEAR(as_object(self)->dict);
  if (greenlet != nullptr) {
    greenlet->clear();
  }
  return 0;
}

void dealloc(PyObject* self) {
  Greenlet* greenlet = as_object(self)->greenlet;
  if (greenlet != nullptr && greenlet->state() == State::kSuspended &&
      cpython::revive_for(self, &finalize)) {
    return;
  }
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, dealloc);
  if (as_object(self)->weakreflist != nullptr) {
    PyObject_ClearWeakRefs(self);
  }
  Py_CLEAR(as_object(self)->dict);
  const ModuleState* const module =
      greenlet != nullptr ? &greenlet->module() : ModuleState::of_interpreter_or_null();
  const bool drop_type = module != nullptr && owns_type_through(self, &PyTypeObject::tp_dealloc,
                                                                module->subtype_dealloc, &dealloc);
  if (greenlet != nullptr) {
    greenlet->destroy();
  }
  type->tp_free(self);
  if (drop_type) {
    cpython::drop_type(type);
  }
  Py_TRASHCAN_END;
}

int init(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const names[] = {"run", "parent", nullptr};
  PyObject* run = nullptr;
  PyObject* parent = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:green", const_cast<char**>(names), &run,
                                   &parent)) {
    return -1;
  }
  return initialize(Greenlet::of(self), run, parent);
}

// The class itself is called, not a subclass: what type.__call__ does with tp_new and tp_init,
// mostly without making a tuple.
PyObject* construct(PyObject* type, PyObject* const* args, std::size_t flagged_count,
                    PyObject* names) {
  const Py_ssize_t count = PyVectorcall_NARGS(flagged_count);
  if (count > 2 || names != nullptr) [[unlikely]] {
    Ref positional, keywords;
    if (!collect_arguments(args, count, names, positional, keywords)) {
      return nullptr;
    }
    return PyType_Type.tp_call(type, positional.get(), keywords.get());
  }
  Ref self = Ref::take(new_greenlet(reinterpret_cast<PyTypeObject*>(type), nullptr, nullptr));
  if (!self || initialize(Greenlet::of(self.get()), count > 0 ? args[0] : nullptr,
                          count > 1 ? args[1] : nullptr) < 0) {
    return nullptr;
  }
  return self.release();
}

// --- switching ------------------------------------------------------------------------------

[[gnu::noinline]] PyObject* switch_with_any_arguments(Thread& thread, PyObject* self,
                                                      PyObject* const* args, Py_ssize_t count,
                                                      PyObject* names) {
  core::Arguments arguments;
  if (count <= 1 && names == nullptr) [[likely]] {
    arguments = {Ref::share(count == 1 ? args[0] : thread.empty_tuple()), {}, count == 1};
  } else if (!collect_arguments(args, count, names, arguments.args, arguments.kwargs)) {
    return nullptr;
  }
  const Py_ssize_t all = count + (names != nullptr ? PyTuple_GET_SIZE(names) : 0);
  if (!thread.may_switch()) {
    return nullptr;
  }
  return thread.deliver(Greenlet::of(self), core::Message::of(std::move(arguments)),
                        {args, args + all});
}

PyObject* switch_method(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  Thread* const thread = Thread::current();
  if (thread == nullptr) {
    return nullptr;
  }
  Greenlet& target = Greenlet::of(self);
  if (count <= 1 && names == nullptr && thread->can_resume(target)) [[likely]] {
    return thread->resume(target, Py_NewRef(count == 0 ? thread->empty_tuple() : args[0]),
                          {args, args + count});
  }
  return switch_with_any_arguments(*thread, self, args, count, names);
}

PyObject* throw_method(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count > 3) {
    PyErr_Format(PyExc_TypeError, "throw() takes at most 3 arguments (%zd given)", count);
    return nullptr;
  }
  Greenlet& target = Greenlet::of(self);
  return throw_into(target, count > 0 ? args[0] : target.module().greenlet_exit,
                    count > 1 ? args[1] : nullptr, count > 2 ? args[2] : nullptr,
                    {args, args + count});
}

// --- attributes -----------------------------------------------------------------------------

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
    PyErr_SetString(PyExc_AttributeError, "Main greenlets do not have a run attribute.");
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

PyObject* get_parent(PyObject* self, void*) {
  Ref parent = Greenlet::of(self).parent();
  return parent ? parent.release() : Py_NewRef(Py_None);
}

int set_parent_attribute(PyObject* self, PyObject* value, void*) {
  return set_parent(Greenlet::of(self), value);
}

// Calls `look`, which runs no Python code, on a greenlet that other threads may change, with those
// held still.
template <typename Look>
auto with_owner_still(const Greenlet& greenlet, Look look) {
  {
    // Without an owner any thread may change it, and give it one, but only under this lock.
    const cpython::ObjectLock lock(greenlet.object());
    const State state = greenlet.state();
    if (state != State::kRunning && state != State::kSuspended) {
      return look();
    }
  }
  std::optional<cpython::StoppedWorld> still;
  const Thread* const owner = greenlet.thread();
  if (owner == nullptr || owner != Thread::current_or_null()) {
    still.emplace();
  }
  return look();
}

PyObject* get_frame(PyObject* self, void*) {
  Greenlet& greenlet = Greenlet::of(self);
  if (greenlet.state() != State::kSuspended) {
    Py_RETURN_NONE;
  }
  PyFrameObject* const frame = with_owner_still(greenlet, [&]() -> PyFrameObject* {
    return greenlet.state() == State::kSuspended
               ? greenlet.stack_state().innermost_frame(cpython::current_thread_state())
               : nullptr;
  });
  return frame != nullptr ? reinterpret_cast<PyObject*>(frame) : Py_NewRef(Py_None);
}

// Where the context of a greenlet is at this moment.
enum class ContextPlace : unsigned char { kInGreenlet, kInThisThread, kInOtherThread };

ContextPlace place_of_context(const Greenlet& greenlet) {
  if (greenlet.state() != State::kRunning) {
    return ContextPlace::kInGreenlet;
  }
  const Thread* const thread = Thread::current_or_null();
  return thread != nullptr && greenlet.thread() == thread ? ContextPlace::kInThisThread
                                                          : ContextPlace::kInOtherThread;
}

PyObject* get_context(PyObject* self, void*) {
  Greenlet& greenlet = Greenlet::of(self);
  ContextPlace place{};
  PyObject* const context = with_owner_still(greenlet, [&]() -> PyObject* {
    place = place_of_context(greenlet);
    switch (place) {
      case ContextPlace::kInGreenlet:
        return Py_XNewRef(greenlet.stack_state().context());
      case ContextPlace::kInThisThread:
        return Py_XNewRef(cpython::current_thread_state()->context);
      case ContextPlace::kInOtherThread:
        break;
    }
    return nullptr;
  });
  if (place == ContextPlace::kInOtherThread) {
    PyErr_SetString(PyExc_ValueError,
                    "cannot get context of a greenlet that is running in a different thread");
    return nullptr;
  }
  return context != nullptr ? context : Py_NewRef(Py_None);
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
  Greenlet& greenlet = Greenlet::of(self);
  ContextPlace place{};
  Ref context = Ref::share(value == Py_None ? nullptr : value);
  const Ref old = Ref::take(with_owner_still(greenlet, [&]() -> PyObject* {
    place = place_of_context(greenlet);
    switch (place) {
      case ContextPlace::kInGreenlet:
        return greenlet.stack_state().exchange_context(context.release());
      case ContextPlace::kInThisThread:
        return cpython::exchange_running_context(cpython::current_thread_state(),
                                                 context.release());
      case ContextPlace::kInOtherThread:
        break;
    }
    return nullptr;
  }));
  if (place == ContextPlace::kInOtherThread) {
    PyErr_SetString(PyExc_ValueError,
                    "cannot set context of a greenlet that is running in a different thread");
    return -1;
  }
  return 0;
}

PyObject* get_dead(PyObject* self, void*) { return PyBool_FromLong(Greenlet::of(self).is_dead()); }

PyObject* get_stack_saved(PyObject* self, void*) {
  const Greenlet& greenlet = Greenlet::of(self);
  return PyLong_FromSize_t(
      with_owner_still(greenlet, [&]() -> std::size_t { return greenlet.stack_in_use(); }));
}

int is_active(PyObject* self) { return Greenlet::of(self).is_active() ? 1 : 0; }

PyObject* repr(PyObject* self) {
  const Greenlet& greenlet = Greenlet::of(self);
  const State state = greenlet.state();
  const Ref representative = greenlet.thread_representative();
  const Greenlet& owner = Greenlet::of(representative.get());
  const char* description = nullptr;
  switch (state) {
    case State::kNew:
      description = " pending";
      break;
    case State::kRunning: {
      const Thread* const thread = Thread::current_or_null();
      const bool current = thread != nullptr && greenlet.thread() == thread;
      description = current ? " current active started" : " suspended active started";
      break;
    }
    case State::kSuspended:
      description = " suspended active started";
      break;
    case State::kDead:
      description = owner.state() == State::kAbandoned ? " (thread exited) dead" : " dead";
      break;
    case State::kAbandoned:
      description = greenlet.thread() == nullptr ? " (thread exited) dead" : " dead";
      break;
  }
  const bool living_main = greenlet.is_main() && greenlet.is_active();
  return PyUnicode_FromFormat("<%s object at %p (otid=%p)%s%s>", Py_TYPE(self)->tp_name, self,
                              static_cast<void*>(owner.thread()), description,
                              living_main ? " main" : "");
}

PyObject* get_state(PyObject* self, PyObject*) {
  PyErr_Format(PyExc_TypeError, "cannot serialize '%s' object", Py_TYPE(self)->tp_name);
  return nullptr;
}

// --- tables ---------------------------------------------------------------------------------

PyDoc_STRVAR(kTypeDoc,
             "greenlet(run=None, parent=None)\n"
             "\n"
             "A call stack that can be left and entered again, made but not started.\n"
             "\n"
             "run: the callable that the first switch calls with its arguments; may also be set\n"
             "    later, or be a method of a subclass.\n"
             "parent: who receives what run returns or raises; by default the running greenlet.");

PyDoc_STRVAR(kSwitchDoc,
             "switch(*args, **kwargs)\n"
             "\n"
             "Leave the running greenlet for this one; return what the next switch back brings.\n"
             "\n"
             "Started by it, the greenlet calls run(*args, **kwargs). Waiting in switch(), it\n"
             "receives () for no argument, a single positional argument as it is, else the tuple\n"
             "of them, the dict of keyword arguments, or a pair of both. A dead greenlet hands\n"
             "them on to its parent.\n"
             "\n"
             "Raises whatever is thrown into the running greenlet meanwhile; greenlet.error if\n"
             "this greenlet belongs to another thread; MemoryError if there is no room for a\n"
             "stack; AttributeError if there is no run to start.");

PyDoc_STRVAR(kThrowDoc,
             "throw(type=GreenletExit, value=None, traceback=None, /)\n"
             "\n"
             "Switch to this greenlet and raise an exception there, where it waits.\n"
             "\n"
             "The exception is given as in the raise statement's old form: a class with an\n"
             "optional value, or an instance. A greenlet that has not started dies of it, and its\n"
             "parent gets the exception; so does a dead one's. Returns and raises as switch().");

PyDoc_STRVAR(kRunDoc,
             "The callable the first switch calls. Gone (AttributeError) once it has started.");
PyDoc_STRVAR(kParentDoc,
             "The greenlet that receives what this one returns or raises. None for a main\n"
             "greenlet, whose parent cannot be set. ValueError for a cycle.");
PyDoc_STRVAR(
    kFrameDoc,
    "The innermost frame of a suspended greenlet; None if it is unstarted, running, dead.");
PyDoc_STRVAR(kContextDoc,
             "The contextvars.Context it runs in, or None while it has none. ValueError if it is\n"
             "running in another thread.");
PyDoc_STRVAR(kDeadDoc, "True if it has ended, or its thread has.");
PyDoc_STRVAR(kStackSavedDoc, "Bytes of C stack that it has in use while suspended; else 0.");

PyMethodDef methods[] = {
    {"switch", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&switch_method)),
     METH_FASTCALL | METH_KEYWORDS, kSwitchDoc},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&throw_method)),
     METH_FASTCALL, kThrowDoc},
    {"__getstate__", &get_state, METH_NOARGS, "Greenlets cannot be serialized: TypeError."},
    {nullptr, nullptr, 0, nullptr},
};

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

PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Object, weakreflist), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Object, dict), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

template <typename Function>
void* slot(Function* function) {
  return reinterpret_cast<void*>(function);
}

}  // namespace

void adopt_finalizer(PyTypeObject* type, const core::ModuleState& state) {
  // Other threads may make an instance of it at the same time, or look at the slot.
  destructor found = __atomic_load_n(&type->tp_finalize, __ATOMIC_RELAXED);
  if (found == state.slot_tp_finalize) {
    __atomic_compare_exchange_n(&type->tp_finalize, &found, &finalize_subclass, /*weak=*/false,
                                __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  }
}

namespace {

constexpr const char* kTypeName = "greenlet.greenlet";
constexpr unsigned long kTypeFlags =
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE;

constinit PyNumberMethods number_methods{};
constinit PyTypeObject static_type{};

// At its end an interpreter leaves the static types of extensions as they are: with a dict, bases,
// caches and a version that are its own. The next one would take them for its own, if the type did
// not begin from nothing. What the last one has left is not freed: nothing of it can be relied on.
PyTypeObject* make_static_type() {
  number_methods.nb_bool = &is_active;
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  if (Py_REFCNT(&static_type) != 0) {
    type.ob_base = static_type.ob_base;  // what is left may own references to it
  }
  type.tp_name = kTypeName;
  type.tp_basicsize = sizeof(Object);
  type.tp_flags = kTypeFlags;
  type.tp_doc = kTypeDoc;
  type.tp_new = &new_greenlet;
  type.tp_init = &init;
  type.tp_dealloc = &dealloc;
  type.tp_traverse = &traverse;
  type.tp_clear = &clear;
  type.tp_finalize = &finalize;
  type.tp_free = &PyObject_GC_Del;
  type.tp_repr = &repr;
  type.tp_as_number = &number_methods;
  type.tp_methods = methods;
  type.tp_getset = attributes;
  type.tp_dictoffset = offsetof(Object, dict);
  type.tp_weaklistoffset = offsetof(Object, weakreflist);
  type.tp_vectorcall = &construct;
  static_type = type;
  if (PyType_Ready(&static_type) < 0) {
    return nullptr;
  }
  Py_INCREF(&static_type);
  return &static_type;
}

PyTypeObject* make_heap_type(PyObject* module) {
  PyType_Slot slots[] = {
      {Py_tp_doc, const_cast<char*>(kTypeDoc)},
      {Py_tp_new, slot(&new_greenlet)},
      {Py_tp_init, slot(&init)},
      {Py_tp_dealloc, slot(&dealloc)},
      {Py_tp_traverse, slot(&traverse)},
      {Py_tp_clear, slot(&clear)},
      {Py_tp_finalize, slot(&finalize)},
      {Py_tp_free, slot(&PyObject_GC_Del)},
      {Py_tp_repr, slot(&repr)},
      {Py_nb_bool, slot(&is_active)},
      {Py_tp_methods, methods},
      {Py_tp_getset, attributes},
      {Py_tp_members, members},
      {0, nullptr},
  };
  PyType_Spec spec = {
      .name = kTypeName,
      .basicsize = static_cast<int>(sizeof(Object)),
      .itemsize = 0,
      .flags = static_cast<unsigned int>(kTypeFlags),
      .slots = slots,
  };
  auto* const type =
      reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
  if (type == nullptr || cpython::find_type_counts(type) < 0) {
    Py_XDECREF(type);
    return nullptr;
  }
  // There is a slot for it from 3.14 on only. Subclasses do not inherit it.
  type->tp_vectorcall = &construct;
  return type;
}

}  // namespace

PyTypeObject* make_greenlet_type(PyObject* module) {
  return PyInterpreterState_Get() == PyInterpreterState_Main() ? make_static_type()
                                                               : make_heap_type(module);
}

}  // namespace greenlet::module
