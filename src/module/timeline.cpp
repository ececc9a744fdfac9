// The functions that greenlet.timeline wraps: a recording of all switches.
#include "module/timeline.h"

#include "core/module_state.h"
#include "core/naming.h"
#include "core/timeline.h"

namespace greenlet::module {
namespace {

using core::ModuleState;
using core::Timeline;

PyObject* start(PyObject* module, PyObject* args) {
  Py_ssize_t limit;
  PyObject *partial, *member;
  if (!PyArg_ParseTuple(args, "nOO", &limit, &partial, &member)) {
    return nullptr;
  }
  if (limit < 0) {
    PyErr_Format(PyExc_ValueError, "cannot keep %zd switches", limit);
    return nullptr;
  }
  ModuleState& state = ModuleState::of(module);
  if (!Timeline::start(state, static_cast<std::size_t>(limit),
                       core::find_partial_field(partial, member))) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* stop(PyObject* module, PyObject*) {
  return Timeline::stop(ModuleState::of(module)).release();
}

PyObject* discard(PyObject* module, PyObject*) {
  Timeline::discard(ModuleState::of(module));
  Py_RETURN_NONE;
}

PyObject* is_recording(PyObject* module, PyObject*) {
  return PyBool_FromLong(ModuleState::of(module).timeline != nullptr);
}

}  // namespace

PyMethodDef timeline_functions[] = {
    {"_timeline_start", &start, METH_VARARGS,
     "_timeline_start($module, limit, partial, member, /)\n--\n\n"},
    {"_timeline_stop", &stop, METH_NOARGS, "_timeline_stop($module, /)\n--\n\n"},
    {"_timeline_discard", &discard, METH_NOARGS, "_timeline_discard($module, /)\n--\n\n"},
    {"_timeline_is_recording", &is_recording, METH_NOARGS,
     "_timeline_is_recording($module, /)\n--\n\n"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace greenlet::module
