/* An extension module in C that uses greenlets. It makes a list of the values
 * that code deep in C hands over one by one:
 *
 *   >>> import values
 *   >>> values.collect(lambda: values.countdown(3))
 *   [3, 2, 1]
 *
 * countdown() hands each value to the parent greenlet from the middle of a C
 * loop, and goes on with the loop when the parent switches back.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>

/* Hands a value to the parent of the running greenlet. Returns what the next
 * switch back brings. */
static PyObject* hand_over(PyObject* value) {
  PyGreenlet* const current = PyGreenlet_GetCurrent();
  if (current == NULL) {
    return NULL;
  }
  PyGreenlet* const parent = PyGreenlet_GetParent(current);
  PyObject* answer = NULL;
  if (parent != NULL) {
    PyObject* const arguments = PyTuple_Pack(1, value);
    if (arguments != NULL) {
      answer = PyGreenlet_Switch(parent, arguments, NULL);
      Py_DECREF(arguments);
    }
    Py_DECREF(parent);
  } else if (!PyErr_Occurred()) { /* a main greenlet has no parent */
    PyErr_SetString(PyExc_RuntimeError, "call this in a greenlet");
  }
  Py_DECREF(current);
  return answer;
}

static PyObject* countdown(PyObject* Py_UNUSED(module), PyObject* argument) {
  long number = PyLong_AsLong(argument);
  if (number == -1 && PyErr_Occurred()) {
    return NULL;
  }
  for (; number > 0; number--) {
    PyObject* const value = PyLong_FromLong(number);
    PyObject* const answer = value != NULL ? hand_over(value) : NULL;
    Py_XDECREF(value);
    if (answer == NULL) {
      return NULL; /* an exception, which was thrown into this greenlet */
    }
    Py_DECREF(answer);
  }
  Py_RETURN_NONE;
}

static PyObject* collect(PyObject* Py_UNUSED(module), PyObject* function) {
  PyObject* values = PyList_New(0);
  PyGreenlet* const task = values != NULL ? PyGreenlet_New(function, NULL) : NULL;
  if (task == NULL) {
    Py_XDECREF(values);
    return NULL;
  }
  for (;;) {
    PyObject* const value = PyGreenlet_Switch(task, NULL, NULL);
    const int goes_on = value != NULL ? PyGreenlet_ACTIVE(task) : -1;
    if (goes_on != 1) { /* it has returned (0), or raised an exception (-1) */
      Py_XDECREF(value);
      if (goes_on == -1) {
        Py_CLEAR(values);
      }
      break;
    }
    const int failed = PyList_Append(values, value);
    Py_DECREF(value);
    if (failed) {
      Py_CLEAR(values);
      break;
    }
  }
  Py_DECREF(task); /* if it has not finished, GreenletExit is raised in it */
  return values;
}

static PyMethodDef functions[] = {
    {"countdown", countdown, METH_O,
     "countdown(n): hand n, n-1, ... 1 to the parent greenlet."},
    {"collect", collect, METH_O,
     "collect(function): call it in a greenlet; list what it hands over."},
    {NULL, NULL, 0, NULL},
};

static int prepare(PyObject* Py_UNUSED(module)) {
  PyGreenlet_Import(); /* in each source file, before other uses */
  return _PyGreenlet_API != NULL ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void*)prepare},
#if PY_VERSION_HEX >= 0x030C0000
    /* The header keeps the table of one interpreter. */
    {Py_mod_multiple_interpreters,
     Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "values",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_values(void) {
  return PyModuleDef_Init(&definition);
}
