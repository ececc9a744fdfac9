/* The entries of greenlet.h with any arguments, and with or without an exception set: what
 * capi_driver.py calls at random. An Ellipsis stands for NULL, as an argument and as a result. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>

enum { ARGUMENTS = 4 };

/* What PyErr_GetRaisedException() of 3.12 returns. */
static PyObject* take_exception(void) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  if (type == NULL) {
    return NULL;
  }
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL) {
    PyException_SetTraceback(value, traceback);
  }
  Py_XDECREF(traceback);
  Py_DECREF(type);
  return value;
}

static PyObject* flag(int value) { return value < 0 ? NULL : PyLong_FromLong(value); }

static PyObject* call_entry(int entry, PyObject** given) {
  PyGreenlet* const self = (PyGreenlet*)given[0];
  switch (entry) {
    case PyGreenlet_New_NUM:
      return (PyObject*)PyGreenlet_New(given[0], (PyGreenlet*)given[1]);
    case PyGreenlet_GetCurrent_NUM:
      return (PyObject*)PyGreenlet_GetCurrent();
    case PyGreenlet_Throw_NUM:
      return PyGreenlet_Throw(self, given[1], given[2], given[3]);
    case PyGreenlet_Switch_NUM:
      return PyGreenlet_Switch(self, given[1], given[2]);
    case PyGreenlet_SetParent_NUM:
      return flag(PyGreenlet_SetParent(self, (PyGreenlet*)given[1]));
    case PyGreenlet_MAIN_NUM:
      return flag(PyGreenlet_MAIN(self));
    case PyGreenlet_STARTED_NUM:
      return flag(PyGreenlet_STARTED(self));
    case PyGreenlet_ACTIVE_NUM:
      return flag(PyGreenlet_ACTIVE(self));
    default:
      return (PyObject*)PyGreenlet_GetParent(self);
  }
}

/* call(entry, pending, *arguments): the result and the exception that is set afterwards. `pending`
 * is an exception that is set before. */
static PyObject* call(PyObject* Py_UNUSED(module), PyObject* args) {
  const long entry = PyLong_AsLong(PyTuple_GET_ITEM(args, 0));
  PyObject* const pending = PyTuple_GET_ITEM(args, 1);
  PyObject *given[ARGUMENTS], *value, *exception, *pair;
  Py_ssize_t index;
  for (index = 0; index < ARGUMENTS; ++index) {
    PyObject* const argument =
        index + 2 < PyTuple_GET_SIZE(args) ? PyTuple_GET_ITEM(args, index + 2) : Py_Ellipsis;
    given[index] = argument == Py_Ellipsis ? NULL : argument;
  }
  if (pending != Py_Ellipsis) {
    PyErr_SetObject((PyObject*)Py_TYPE(pending), pending);
  }
  value = call_entry((int)entry, given);
  exception = take_exception();
  pair = PyTuple_Pack(2, value != NULL ? value : Py_Ellipsis,
                      exception != NULL ? exception : Py_Ellipsis);
  Py_XDECREF(value);
  Py_XDECREF(exception);
  return pair;
}

/* rethrow(greenlet, call): throws what the call has raised. It is set still, and has no other owner. */
static PyObject* rethrow(PyObject* Py_UNUSED(module), PyObject* args) {
  PyObject *self, *function, *raised, *type;
  if (!PyArg_ParseTuple(args, "OO", &self, &function)) {
    return NULL;
  }
  Py_XDECREF(PyObject_CallObject(function, NULL));
  raised = take_exception();
  if (raised == NULL) {
    return PyErr_Format(PyExc_ValueError, "the call has raised nothing");
  }
  type = (PyObject*)Py_TYPE(raised);
  Py_INCREF(type);
  PyErr_Restore(type, raised, NULL);
  return PyGreenlet_Throw((PyGreenlet*)self, raised, NULL, NULL);
}

/* at(address): the object there, which another interpreter keeps. */
static PyObject* at(PyObject* Py_UNUSED(module), PyObject* address) {
  PyObject* const object = (PyObject*)PyLong_AsVoidPtr(address);
  Py_XINCREF(object);
  return object;
}

static PyMethodDef methods[] = {
    {"call", call, METH_VARARGS, NULL},
    {"rethrow", rethrow, METH_VARARGS, NULL},
    {"at", at, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int import_greenlet(PyObject* Py_UNUSED(module)) {
  PyGreenlet_Import();
  return _PyGreenlet_API != NULL ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, __extension__(void*) import_greenlet},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "driver", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_driver(void) { return PyModuleDef_Init(&definition); }
