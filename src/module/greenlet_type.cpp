// The table of the type greenlet.greenlet: creation, switch(), throw(). The slots for collection
// and deallocation are core/collection.h.
#include "module/greenlet_type.h"

#include <structmember.h>

#include <cstddef>

#include "core/collection.h"
#include "core/greenlet.h"
#include "core/thread_registry.h"
#include "core/thread_stack.h"
#include "cpython/layout.h"
#include "module/attributes.h"
#include "module/operations.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::Object;
using core::Ref;
using core::Thread;
using core::ThreadRegistry;

// Puts the arguments of a vectorcall into a tuple and, if there are keywords, a dict. False with an
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

// --- creation -------------------------------------------------------------------------------

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

// The vectorcall of the class itself, not of a subclass: does what type.__call__ does with tp_new
// and tp_init. It makes no tuple if there are at most two positional arguments.
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
  if (!core::prepare_to_switch(thread)) {
    return nullptr;
  }
  return thread.deliver(Greenlet::of(self), core::Message::of(std::move(arguments)),
                        {args, args + all});
}

PyObject* switch_method(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  Thread* const thread = ThreadRegistry::current();
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

int is_active(PyObject* self) { return Greenlet::of(self).appears_active() ? 1 : 0; }

PyObject* get_state(PyObject* self, PyObject*) {
  PyErr_Format(PyExc_TypeError, "cannot serialize '%s' object", Py_TYPE(self)->tp_name);
  return nullptr;
}

// --- tables ---------------------------------------------------------------------------------

// The line above "--" is __text_signature__. __doc__ begins with the same line, as the published
// one.
PyDoc_STRVAR(
    kTypeDoc,
    "greenlet(run=None, parent=None)\n"
    "--\n"
    "\n"
    "greenlet(run=None, parent=None)\n"  // __doc__ has not the first one; programs look for it
    "\n"
    "A task with a call stack of its own. It runs when another greenlet switches to it.\n"
    "\n"
    "The first switch calls run with its arguments. run may also be set later, or be a\n"
    "method of a subclass. When it finishes, parent goes on with what it returns or raises.\n"
    "Without a parent, or with None, the running greenlet is the parent. A parent that is\n"
    "no greenlet raises TypeError.\n"
    "\n"
    "An object is true while it is active: started and not dead. When the last reference to\n"
    "a suspended greenlet goes away, GreenletExit is raised in it, in its own thread, so\n"
    "that its finally blocks run. Greenlets cannot be copied or pickled: TypeError.");

PyDoc_STRVAR(
    kSwitchDoc,
    "switch($self, /, *args, **kwargs)\n"
    "--\n"
    "\n"
    "Run this greenlet, and return what the next switch back to the caller brings.\n"
    "\n"
    "A greenlet that has not started calls run(*args, **kwargs). One that waits in switch()\n"
    "receives () for no argument, one positional argument as itself, several as a tuple,\n"
    "keywords alone as a dict, and both as (args, kwargs). If the greenlet is dead, its\n"
    "nearest living ancestor receives them; if that is the caller, they are returned at\n"
    "once.\n"
    "\n"
    "Raises whatever is thrown into the caller while it waits. The switch itself raises\n"
    "greenlet.error if this greenlet belongs to another thread, or is needed by a call on\n"
    "the thread's stack; AttributeError if it has no run to start with; MemoryError if\n"
    "there is no room for its stack. Then the caller goes on, and the greenlet is as it\n"
    "was.");

PyDoc_STRVAR(
    kThrowDoc,
    "throw($self, typ=..., val=None, tb=None, /)\n"
    "--\n"
    "\n"
    "Switch to this greenlet, and raise an exception where it waits.\n"
    "\n"
    "The exception is a class (by default GreenletExit) with an optional value, or an\n"
    "instance; tb becomes its traceback. A greenlet that has not started dies of it,\n"
    "without a call of run, and its parent receives the exception. If the greenlet is dead,\n"
    "its nearest living ancestor receives it. There a GreenletExit is a value, and is not\n"
    "raised.\n"
    "\n"
    "Returns and raises as switch() does; TypeError if the arguments are no exception.");

PyMethodDef methods[] = {
    {"switch", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&switch_method)),
     METH_FASTCALL | METH_KEYWORDS, kSwitchDoc},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&throw_method)),
     METH_FASTCALL, kThrowDoc},
    {"__getstate__", &get_state, METH_NOARGS,
     "__getstate__($self, /)\n--\n\nGreenlets cannot be serialized: TypeError."},
    {nullptr, nullptr, 0, nullptr},
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

constexpr const char* kTypeName = "greenlet.greenlet";
constexpr unsigned long kTypeFlags =
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE;

constinit PyNumberMethods number_methods{};
constinit PyTypeObject static_type{};

// An interpreter that ends leaves the static types of extensions as they are, with its own dict,
// bases, caches and version in them. The next main interpreter would take them for its own. So the
// type is made from zeros each time. What the last interpreter has left is not freed, because
// nothing about it is certain.
PyTypeObject* make_static_type() {
  number_methods.nb_bool = &is_active;
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  if (Py_REFCNT(&static_type) != 0) {
    type.ob_base = static_type.ob_base;  // objects of the last interpreter may own references
  }
  type.tp_name = kTypeName;
  type.tp_basicsize = sizeof(Object);
  type.tp_flags = kTypeFlags;
  type.tp_doc = kTypeDoc;
  type.tp_new = &new_greenlet;
  type.tp_init = &init;
  type.tp_dealloc = &core::deallocate_greenlet;
  type.tp_traverse = &core::traverse_greenlet;
  type.tp_clear = &core::clear_greenlet;
  type.tp_finalize = &core::finalize_greenlet;
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
      {Py_tp_dealloc, slot(&core::deallocate_greenlet)},
      {Py_tp_traverse, slot(&core::traverse_greenlet)},
      {Py_tp_clear, slot(&core::clear_greenlet)},
      {Py_tp_finalize, slot(&core::finalize_greenlet)},
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
  // Py_tp_vectorcall exists since 3.14. Subclasses do not inherit the slot.
  type->tp_vectorcall = &construct;
  return type;
}

}  // namespace

PyTypeObject* make_greenlet_type(PyObject* module) {
  return PyInterpreterState_Get() == PyInterpreterState_Main() ? make_static_type()
                                                               : make_heap_type(module);
}

}  // namespace greenlet::module
