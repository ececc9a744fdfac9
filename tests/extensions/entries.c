/* Every name of greenlet.h, for Python to call. Nothing is checked, so that tests can do what a C
 * program may do wrong. An Ellipsis stands for NULL, as an argument and as a result without an
 * exception. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#ifndef PyGreenlet_GET_PARENT
#error "a program that knows only the old name must find it by #ifdef"
#endif

static PyObject* argument(PyObject* args, Py_ssize_t index) {
  PyObject* const given = PyTuple_GetItem(args, index);
  PyErr_Clear();
  return given == Py_Ellipsis ? NULL : given;
}

static PyGreenlet* greenlet(PyObject* args, Py_ssize_t index) {
  return (PyGreenlet*)argument(args, index);
}

static PyObject* result(PyObject* value) {
  if (value != NULL || PyErr_Occurred()) {
    return value;
  }
  Py_INCREF(Py_Ellipsis);
  return Py_Ellipsis;
}

/* For entries that return an int. -1 without an exception would become a SystemError. */
static PyObject* answer(int value) {
  return value == -1 && PyErr_Occurred() ? NULL : PyLong_FromLong(value);
}

static PyObject* create(PyObject* Py_UNUSED(module), PyObject* args) {
  return result((PyObject*)PyGreenlet_New(argument(args, 0), greenlet(args, 1)));
}

static PyObject* get_current(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return result((PyObject*)PyGreenlet_GetCurrent());
}

static PyObject* throw_(PyObject* Py_UNUSED(module), PyObject* args) {
  return result(
      PyGreenlet_Throw(greenlet(args, 0), argument(args, 1), argument(args, 2), argument(args, 3)));
}

static PyObject* switch_(PyObject* Py_UNUSED(module), PyObject* args) {
  return result(PyGreenlet_Switch(greenlet(args, 0), argument(args, 1), argument(args, 2)));
}

static PyObject* set_parent(PyObject* Py_UNUSED(module), PyObject* args) {
  return answer(PyGreenlet_SetParent(greenlet(args, 0), greenlet(args, 1)));
}

static PyObject* is_main(PyObject* Py_UNUSED(module), PyObject* args) {
  return answer(PyGreenlet_MAIN(greenlet(args, 0)));
}

static PyObject* is_started(PyObject* Py_UNUSED(module), PyObject* args) {
  return answer(PyGreenlet_STARTED(greenlet(args, 0)));
}

static PyObject* is_active(PyObject* Py_UNUSED(module), PyObject* args) {
  return answer(PyGreenlet_ACTIVE(greenlet(args, 0)));
}

static PyObject* get_parent(PyObject* Py_UNUSED(module), PyObject* args) {
  return result((PyObject*)PyGreenlet_GetParent(greenlet(args, 0)));
}

static PyObject* get_parent_by_old_name(PyObject* Py_UNUSED(module), PyObject* args) {
  return result((PyObject*)PyGreenlet_GET_PARENT(greenlet(args, 0)));
}

static PyObject* check(PyObject* Py_UNUSED(module), PyObject* args) {
  return PyBool_FromLong(PyGreenlet_Check(argument(args, 0)));
}

/* What the header says: the three objects, the version, the size and the offsets. */
static PyObject* facts(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return Py_BuildValue("OOOsnnnn", (PyObject*)&PyGreenlet_Type, PyExc_GreenletError,
                       PyExc_GreenletExit, GREENLET_VERSION, (Py_ssize_t)sizeof(PyGreenlet),
                       (Py_ssize_t)offsetof(PyGreenlet, weakreflist),
                       (Py_ssize_t)offsetof(PyGreenlet, dict),
                       (Py_ssize_t)offsetof(PyGreenlet, pimpl));
}

/* A thread that Python has not made. Each round has a thread state of its own. */
static PyObject* body(PyObject* Py_UNUSED(module), PyObject* number) {
  PyGreenlet* const self = PyGreenlet_GetCurrent();
  PyGreenlet* const parent = self != NULL ? PyGreenlet_GetParent(self) : NULL;
  PyObject* args = parent != NULL ? PyTuple_Pack(1, number) : NULL;
  PyObject* const got = args != NULL ? PyGreenlet_Switch(parent, args, NULL) : NULL;
  Py_XDECREF(args);
  Py_XDECREF(parent);
  Py_XDECREF(self);
  return got;
}

static PyMethodDef body_method = {"body", body, METH_O, NULL};

struct rounds {
  long asked;
  long good;
};

static int one_round(long number) {
  PyObject* const run = PyCFunction_New(&body_method, NULL);
  PyGreenlet* const made = run != NULL ? PyGreenlet_New(run, NULL) : NULL;
  PyObject* const args = Py_BuildValue("(l)", number);
  PyObject* first = NULL;
  PyObject* last = NULL;
  int good = 0;
  if (made != NULL && args != NULL) {
    first = PyGreenlet_Switch(made, args, NULL);
    last = first != NULL ? PyGreenlet_Switch(made, args, NULL) : NULL;
    good = last != NULL && PyLong_AsLong(first) == number && PyLong_AsLong(last) == number &&
           PyGreenlet_STARTED(made) == 1 && PyGreenlet_ACTIVE(made) == 0;
  }
  if (PyErr_Occurred()) {
    PyErr_WriteUnraisable(run);
  }
  Py_XDECREF(first);
  Py_XDECREF(last);
  Py_XDECREF(args);
  Py_XDECREF((PyObject*)made);
  Py_XDECREF(run);
  return good;
}

static void* thread_main(void* argument) {
  struct rounds* const rounds = (struct rounds*)argument;
  for (long number = 0; number < rounds->asked; ++number) {
    const PyGILState_STATE state = PyGILState_Ensure();
    rounds->good += one_round(number);
    PyGILState_Release(state);
  }
  return NULL;
}

static PyObject* in_a_foreign_thread(PyObject* Py_UNUSED(module), PyObject* args) {
  struct rounds rounds = {0, 0};
  pthread_t thread;
  int failed;
  if (!PyArg_ParseTuple(args, "l", &rounds.asked)) {
    return NULL;
  }
  Py_BEGIN_ALLOW_THREADS;
  failed = pthread_create(&thread, NULL, thread_main, &rounds) || pthread_join(thread, NULL);
  Py_END_ALLOW_THREADS;
  return failed ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(rounds.good);
}

/* Late callers: call each entry once, and use nothing of Python but results and exceptions. */
struct late {
  PyGreenlet* started;
  PyGreenlet* unstarted;
  PyGreenlet* main;
};

static void settle(const char* entry, int good, PyObject* value) {
  PyObject* const raised = PyErr_Occurred();
  if (!good && raised == NULL) {
    printf("%s: an error without an exception\n", entry);
  }
  if (good && raised != NULL) {
    printf("%s: an exception without an error\n", entry);
  }
  PyErr_Clear();
  Py_XDECREF(value);
}

static void call_every_entry(const struct late* late) {
  PyGreenlet* const greenlets[] = {late->started, late->unstarted, late->main};
  PyObject* value = (PyObject*)PyGreenlet_GetCurrent();
  settle("PyGreenlet_GetCurrent", value != NULL, value);
  value = (PyObject*)PyGreenlet_New(NULL, NULL);
  settle("PyGreenlet_New", value != NULL, value);
  for (int index = 0; index < 3; ++index) {
    PyGreenlet* const each = greenlets[index];
    settle("PyGreenlet_MAIN", PyGreenlet_MAIN(each) != -1, NULL);
    settle("PyGreenlet_STARTED", PyGreenlet_STARTED(each) != -1, NULL);
    settle("PyGreenlet_ACTIVE", PyGreenlet_ACTIVE(each) != -1, NULL);
    (void)PyGreenlet_Check(each);
    value = (PyObject*)PyGreenlet_GetParent(each);
    settle("PyGreenlet_GetParent", value != NULL || !PyErr_Occurred(), value);
    settle("PyGreenlet_SetParent", PyGreenlet_SetParent(each, late->main) == 0, NULL);
    value = PyGreenlet_Switch(each, NULL, NULL);
    settle("PyGreenlet_Switch", value != NULL, value);
    value = PyGreenlet_Throw(each, PyExc_KeyError, NULL, NULL);
    settle("PyGreenlet_Throw", value != NULL, value);
  }
  PyErr_SetString(PyExc_GreenletError, "late");
  settle("PyExc_GreenletError", !PyErr_ExceptionMatches(PyExc_GreenletError), NULL);
}

static void destroy_late(PyObject* capsule) {
  struct late* const late = (struct late*)PyCapsule_GetPointer(capsule, NULL);
  call_every_entry(late);
  printf("late\n");
  fflush(stdout);
  Py_DECREF((PyObject*)late->started);
  Py_DECREF((PyObject*)late->unstarted);
  Py_DECREF((PyObject*)late->main);
  PyMem_RawFree(late);
}

/* late_caller(started, unstarted, main): an object whose end calls every entry. */
static PyObject* late_caller(PyObject* Py_UNUSED(module), PyObject* args) {
  struct late* const late = (struct late*)PyMem_RawMalloc(sizeof(struct late));
  PyObject *started, *unstarted, *main;
  if (late == NULL || !PyArg_ParseTuple(args, "OOO", &started, &unstarted, &main)) {
    PyMem_RawFree(late);
    return NULL;
  }
  Py_INCREF(started);
  Py_INCREF(unstarted);
  Py_INCREF(main);
  late->started = (PyGreenlet*)started;
  late->unstarted = (PyGreenlet*)unstarted;
  late->main = (PyGreenlet*)main;
  return PyCapsule_New(late, NULL, destroy_late);
}

/* keep_to_the_end(object): keeps it in the interpreter's dict, which goes after all modules. */
static PyObject* keep_to_the_end(PyObject* Py_UNUSED(module), PyObject* object) {
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
  if (dict == NULL || PyDict_SetItemString(dict, "entries.late", object) < 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

/* with_exception(exception): what PyGreenlet_New() and PyGreenlet_GetCurrent() return in a thread
 * that comes to them with an exception set, and whether that is set still. */
static PyObject* with_exception(PyObject* Py_UNUSED(module), PyObject* exception) {
  PyErr_SetObject((PyObject*)Py_TYPE(exception), exception);
  PyObject* const made = (PyObject*)PyGreenlet_New(NULL, NULL);
  PyObject* const current = (PyObject*)PyGreenlet_GetCurrent();
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyObject* const answers =
      Py_BuildValue("OOO", made != NULL ? made : Py_None, current != NULL ? current : Py_None,
                    value == exception ? Py_True : Py_False);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  Py_XDECREF(made);
  Py_XDECREF(current);
  return answers;
}

/* switch_with_error(greenlet, exception): Switch while the exception is set. */
static PyObject* switch_with_error(PyObject* Py_UNUSED(module), PyObject* args) {
  PyGreenlet* const target = greenlet(args, 0);
  PyErr_SetNone(argument(args, 1));
  return PyGreenlet_Switch(target, NULL, NULL);
}

/* The entries as values. */
typedef PyObject* (*switch_function)(PyGreenlet*, PyObject*, PyObject*);
typedef int (*flag_function)(PyGreenlet*);

static switch_function chosen(void) { return PyGreenlet_Switch; }

/* How many entries are the same pointers by name and by index. */
static PyObject* same_by_index(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  PyGreenlet* (*const make)(PyObject*, PyGreenlet*) = PyGreenlet_New;
  PyGreenlet* (*const current)(void) = &*PyGreenlet_GetCurrent;
  PyGreenlet* (*const parent)(PyGreenlet*) = PyGreenlet_GET_PARENT;
  int (*const set)(PyGreenlet*, PyGreenlet*) = PyGreenlet_SetParent;
  PyObject* (*const thrower)(PyGreenlet*, PyObject*, PyObject*, PyObject*) = (PyGreenlet_Throw);
  const flag_function flags[] = {PyGreenlet_MAIN, PyGreenlet_STARTED, PyGreenlet_ACTIVE};
  const switch_function switches = chosen();
  void* found[PyGreenlet_API_pointers];
  int index, same = 0;
  found[PyGreenlet_Type_NUM] = &PyGreenlet_Type;
  found[PyExc_GreenletError_NUM] = PyExc_GreenletError;
  found[PyExc_GreenletExit_NUM] = PyExc_GreenletExit;
#define FOUND(number, function) memcpy(&found[number], &function, sizeof(void*))
  FOUND(PyGreenlet_New_NUM, make);
  FOUND(PyGreenlet_GetCurrent_NUM, current);
  FOUND(PyGreenlet_Throw_NUM, thrower);
  FOUND(PyGreenlet_Switch_NUM, switches);
  FOUND(PyGreenlet_SetParent_NUM, set);
  FOUND(PyGreenlet_MAIN_NUM, flags[0]);
  FOUND(PyGreenlet_STARTED_NUM, flags[1]);
  FOUND(PyGreenlet_ACTIVE_NUM, flags[2]);
  FOUND(PyGreenlet_GET_PARENT_NUM, parent);
#undef FOUND
  for (index = 0; index < PyGreenlet_API_pointers; ++index) {
    same += found[index] == _PyGreenlet_API[index];
  }
  return PyLong_FromLong(same);
}

static PyObject* switch_in_parentheses(PyObject* Py_UNUSED(module), PyObject* args) {
  return result((PyGreenlet_Switch)(greenlet(args, 0), NULL, NULL));
}

/* Entries that are called without a thread state. That ends the process. */
struct call {
  int entry;
  PyGreenlet* greenlet;
};

static void* call_detached(void* argument) {
  const struct call* const call = (const struct call*)argument;
  switch (call->entry) {
    case PyGreenlet_New_NUM:
      PyGreenlet_New(NULL, NULL);
      break;
    case PyGreenlet_GetCurrent_NUM:
      PyGreenlet_GetCurrent();
      break;
    case PyGreenlet_Throw_NUM:
      PyGreenlet_Throw(call->greenlet, PyExc_GreenletExit, NULL, NULL);
      break;
    case PyGreenlet_Switch_NUM:
      PyGreenlet_Switch(call->greenlet, NULL, NULL);
      break;
    case PyGreenlet_SetParent_NUM:
      PyGreenlet_SetParent(call->greenlet, call->greenlet);
      break;
    case PyGreenlet_MAIN_NUM:
      PyGreenlet_MAIN(call->greenlet);
      break;
    case PyGreenlet_STARTED_NUM:
      PyGreenlet_STARTED(call->greenlet);
      break;
    case PyGreenlet_ACTIVE_NUM:
      PyGreenlet_ACTIVE(call->greenlet);
      break;
    case PyGreenlet_GET_PARENT_NUM:
      PyGreenlet_GET_PARENT(call->greenlet);
      break;
    default:
      PyThreadState_Get(); /* what CPython does itself */
      break;
  }
  return NULL;
}

/* detached(number, elsewhere, greenlet): in this thread, or in one that Python does not know. */
static PyObject* detached(PyObject* Py_UNUSED(module), PyObject* args) {
  struct call call;
  pthread_t thread;
  int elsewhere, failed = 0;
  PyObject* target;
  if (!PyArg_ParseTuple(args, "ipO", &call.entry, &elsewhere, &target)) {
    return NULL;
  }
  call.greenlet = (PyGreenlet*)target;
  Py_BEGIN_ALLOW_THREADS;
  if (elsewhere) {
    failed = pthread_create(&thread, NULL, call_detached, &call) || pthread_join(thread, NULL);
  } else {
    call_detached(&call);
  }
  Py_END_ALLOW_THREADS;
  return failed ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(0);
}

/* after_the_end(number, greenlet): when the interpreter has ended. */
static struct call last_call;

static void call_last(void) { call_detached(&last_call); }

static PyObject* after_the_end(PyObject* Py_UNUSED(module), PyObject* args) {
  PyObject* target;
  if (!PyArg_ParseTuple(args, "iO", &last_call.entry, &target)) {
    return NULL;
  }
  Py_INCREF(target);
  last_call.greenlet = (PyGreenlet*)target;
  return PyLong_FromLong(Py_AtExit(call_last));
}

static PyMethodDef methods[] = {
    {"switch_with_error", switch_with_error, METH_VARARGS, NULL},
    {"same_by_index", same_by_index, METH_NOARGS, NULL},
    {"switch_in_parentheses", switch_in_parentheses, METH_VARARGS, NULL},
    {"detached", detached, METH_VARARGS, NULL},
    {"after_the_end", after_the_end, METH_VARARGS, NULL},
    {"create", create, METH_VARARGS, NULL},
    {"get_current", get_current, METH_NOARGS, NULL},
    {"throw", throw_, METH_VARARGS, NULL},
    {"switch", switch_, METH_VARARGS, NULL},
    {"set_parent", set_parent, METH_VARARGS, NULL},
    {"is_main", is_main, METH_VARARGS, NULL},
    {"is_started", is_started, METH_VARARGS, NULL},
    {"is_active", is_active, METH_VARARGS, NULL},
    {"get_parent", get_parent, METH_VARARGS, NULL},
    {"get_parent_by_old_name", get_parent_by_old_name, METH_VARARGS, NULL},
    {"check", check, METH_VARARGS, NULL},
    {"facts", facts, METH_NOARGS, NULL},
    {"in_a_foreign_thread", in_a_foreign_thread, METH_VARARGS, NULL},
    {"late_caller", late_caller, METH_VARARGS, NULL},
    {"with_exception", with_exception, METH_O, NULL},
    {"keep_to_the_end", keep_to_the_end, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int import_greenlet(PyObject* Py_UNUSED(module)) {
  PyGreenlet_Import();
  return _PyGreenlet_API != NULL ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, __extension__(void*) import_greenlet},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "entries", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_entries(void) { return PyModuleDef_Init(&definition); }
