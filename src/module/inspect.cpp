// The functions that greenlet.inspect wraps: which threads and greenlets there are, where they are.
#include "module/inspect.h"

#include "core/dump.h"
#include "core/greenlet.h"
#include "core/hints.h"
#include "core/listing.h"
#include "core/module_state.h"
#include "core/naming.h"
#include "platform/signal.h"

namespace greenlet::module {
namespace {

using core::Greenlet;
using core::ModuleState;
using core::Ref;

// The greenlet of an argument; null with TypeError set if the argument is no greenlet.
Greenlet* checked(PyObject* module, PyObject* object) {
  if (PyObject_TypeCheck(object, ModuleState::of(module).greenlet_type)) {
    return &Greenlet::of(object);
  }
  PyErr_Format(PyExc_TypeError, "expected a greenlet, not %s", Py_TYPE(object)->tp_name);
  return nullptr;
}

PyObject* list_threads(PyObject* module, PyObject*) {
  return core::list_threads(ModuleState::of(module)).release();
}

PyObject* watch_threads(PyObject* module, PyObject*) {
  return core::watch_threads(ModuleState::of(module)).release();
}

PyObject* list_greenlets(PyObject* module, PyObject* ident) {
  const unsigned long number = PyLong_AsUnsignedLong(ident);
  if (PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  return core::list_greenlets(ModuleState::of(module), number).release();
}

PyObject* list_frames(PyObject* module, PyObject* object) {
  Greenlet* const greenlet = checked(module, object);
  return greenlet != nullptr ? core::list_frames(*greenlet).release() : nullptr;
}

// The first name of a greenlet that there is; see greenlet.inspect.get_name().
Ref name_of(const Greenlet& greenlet, const core::Description& found,
            const core::PartialField& partial) {
  if (Ref given = core::name_given_to(greenlet)) {
    return given;
  }
  if (greenlet.is_main()) {
    return Ref::take(PyUnicode_FromString("main"));
  }
  if (Ref function =
          core::name_of_function(greenlet, found.run.get(), found.first_argument.get(), partial)) {
    return function;
  }
  return core::name_of_type(Py_TYPE(greenlet.object()));
}

// `partial` and `member` are functools.partial and its attribute `func`.
PyObject* describe(PyObject* module, PyObject* args) {
  PyObject *object, *partial, *member;
  if (!PyArg_ParseTuple(args, "OOO", &object, &partial, &member)) {
    return nullptr;
  }
  Greenlet* const greenlet = checked(module, object);
  if (greenlet == nullptr) {
    return nullptr;
  }
  core::Description found = core::describe(*greenlet);
  static constexpr const char* kStates[] = {"new", "running", "dead", "abandoned", "suspended"};
  const Ref name = name_of(*greenlet, found, core::find_partial_field(partial, member));
  if (!name) {
    return PyErr_NoMemory();
  }
  const Ref run = found.run ? std::move(found.run) : Ref::share(Py_None);
  const Ref origin = found.origin ? std::move(found.origin) : Ref::share(Py_None);
  return Py_BuildValue("skkOnOOOO", kStates[static_cast<unsigned>(found.state)], found.ident,
                       found.native_id, run.get(), static_cast<Py_ssize_t>(found.stack_in_use),
                       greenlet->is_main() ? Py_True : Py_False,
                       greenlet->is_scheduler() ? Py_True : Py_False, name.get(), origin.get());
}

PyObject* set_name(PyObject* module, PyObject* args) {
  PyObject *object, *name;
  if (!PyArg_ParseTuple(args, "O!O", ModuleState::of(module).greenlet_type, &object, &name)) {
    return nullptr;
  }
  if (name != Py_None && !PyUnicode_Check(name)) {
    return PyErr_Format(PyExc_TypeError, "a name is a str or None, not %s", Py_TYPE(name)->tp_name);
  }
  // A str itself: a class derived from it may refer to the greenlet, and do anything.
  Ref exchanged = name == Py_None ? Ref() : Ref::take(PyUnicode_FromObject(name));
  if (name != Py_None && !exchanged) {
    return nullptr;
  }
  return core::exchange_name(Greenlet::of(object), exchanged) ? Py_NewRef(Py_None)
                                                              : PyErr_NoMemory();
}

PyObject* dump_on_signal(PyObject*, PyObject* args) {
  int signal, descriptor, chain;
  if (!PyArg_ParseTuple(args, "iip", &signal, &descriptor, &chain)) {
    return nullptr;
  }
  return platform::watch_signal(signal, &core::dump_greenlets, descriptor, chain != 0)
             ? Py_NewRef(Py_None)
             : PyErr_SetFromErrno(PyExc_OSError);
}

PyObject* no_dump_on_signal(PyObject*, PyObject* signal) {
  int number;
  if (!PyArg_Parse(signal, "i", &number)) {
    return nullptr;
  }
  return PyBool_FromLong(platform::stop_watching_signal(number) ? 1 : 0);
}

PyObject* dump_now(PyObject*, PyObject* descriptor) {
  int number;
  if (!PyArg_Parse(descriptor, "i", &number)) {
    return nullptr;
  }
  core::dump_greenlets(number);
  Py_RETURN_NONE;
}

// Sets the function that is called with each greenlet that a collection ends; returns the old one.
PyObject* on_collected(PyObject* module, PyObject* callback) {
  return core::exchange_collected_callback(ModuleState::of(module),
                                           callback == Py_None ? Ref() : Ref::share(callback))
      .release();
}

PyObject* count_collected(PyObject* module, PyObject*) {
  return PyLong_FromSsize_t(ModuleState::of(module).collected_greenlets);
}

PyObject* track_origin(PyObject* module, PyObject* frames) {
  int number;
  if (!PyArg_Parse(frames, "i", &number)) {
    return nullptr;
  }
  ModuleState& state = ModuleState::of(module);
  const int previous = state.origin_frames;
  core::track_origin(state, number);
  return PyLong_FromLong(previous);
}

}  // namespace

PyMethodDef inspect_functions[] = {
    {"_list_threads", &list_threads, METH_NOARGS, "_list_threads($module, /)\n--\n\n"},
    {"_watch_threads", &watch_threads, METH_NOARGS, "_watch_threads($module, /)\n--\n\n"},
    {"_list_greenlets", &list_greenlets, METH_O, "_list_greenlets($module, ident, /)\n--\n\n"},
    {"_list_frames", &list_frames, METH_O, "_list_frames($module, greenlet, /)\n--\n\n"},
    {"_describe", &describe, METH_VARARGS,
     "_describe($module, greenlet, partial, member, /)\n--\n\n"},
    {"_set_name", &set_name, METH_VARARGS, "_set_name($module, greenlet, name, /)\n--\n\n"},
    {"_dump_on_signal", &dump_on_signal, METH_VARARGS,
     "_dump_on_signal($module, signum, descriptor, chain, /)\n--\n\n"},
    {"_no_dump_on_signal", &no_dump_on_signal, METH_O,
     "_no_dump_on_signal($module, signum, /)\n--\n\n"},
    {"_dump", &dump_now, METH_O, "_dump($module, descriptor, /)\n--\n\n"},
    {"_on_collected", &on_collected, METH_O, "_on_collected($module, callback, /)\n--\n\n"},
    {"_count_collected", &count_collected, METH_NOARGS, "_count_collected($module, /)\n--\n\n"},
    {"_track_origin", &track_origin, METH_O, "_track_origin($module, frames, /)\n--\n\n"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace greenlet::module
