/* Every kind of compiled class over greenlet: make(kind, slots) returns a new one.
 *
 * kind: "static" is a static type, as Cython 0.29 makes it. "pretended" is a static type that had
 * the flag of a heap type during PyType_Ready(), as in Cython 3.0. "heap" comes from
 * PyType_FromSpec().
 * slots: the letters of the slots that the class fills itself: t(raverse), c(lear), d(ealloc),
 * f(inalize). Programs written for the published greenlet, a static type, do so.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>
#include <string.h>

typedef struct {
  PyGreenlet base;
  PyObject* kept; /* NULL in a class that fills no slot */
} Task;

static int is_heap_type(PyTypeObject* type) {
  return (PyType_GetFlags(type) & Py_TPFLAGS_HEAPTYPE) != 0;
}

/* The class that defines `function`: the nearest base of the instance's class that has it. For
 * instances of a class made in Python the function is called, too. */
#define OWNER(self, slot, function)    \
  PyTypeObject* owner = Py_TYPE(self); \
  while (owner->slot != function) {    \
    owner = owner->tp_base;            \
  }

static int traverse(PyObject* self, visitproc visit, void* arg) {
  OWNER(self, tp_traverse, traverse)
  if (is_heap_type(owner)) {
    Py_VISIT(Py_TYPE(self));
  }
  Py_VISIT(((Task*)self)->kept);
  return PyGreenlet_Type.tp_traverse(self, visit, arg);
}

static int clear(PyObject* self) {
  Py_CLEAR(((Task*)self)->kept);
  return PyGreenlet_Type.tp_clear(self);
}

static void finalize(PyObject* self) { PyGreenlet_Type.tp_finalize(self); }

static void dealloc(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  OWNER(self, tp_dealloc, dealloc)
  if (PyObject_CallFinalizerFromDealloc(self) < 0) {
    return;
  }
  PyObject_GC_UnTrack(self);
  Py_CLEAR(((Task*)self)->kept);
  PyObject_GC_Track(self);
  PyGreenlet_Type.tp_dealloc(self);
  if (is_heap_type(owner)) {
    Py_DECREF(type);
  }
}

static PyObject* get_kept(PyObject* self, void* Py_UNUSED(closure)) {
  PyObject* const kept = ((Task*)self)->kept;
  Py_INCREF(kept != NULL ? kept : Py_None);
  return kept != NULL ? kept : Py_None;
}

static int set_kept(PyObject* self, PyObject* value, void* Py_UNUSED(closure)) {
  PyObject* const old = ((Task*)self)->kept;
  Py_XINCREF(value);
  ((Task*)self)->kept = value;
  Py_XDECREF(old);
  return 0;
}

static PyGetSetDef attributes[] = {
    {"kept", get_kept, set_kept, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int fills(const char* slots, char slot) { return strchr(slots, slot) != NULL; }

/* PyType_Ready() inherits traverse and clear only if the class has neither. */
static traverseproc traverse_for(const char* slots) {
  return fills(slots, 't') ? traverse : fills(slots, 'c') ? PyGreenlet_Type.tp_traverse : NULL;
}

static unsigned long flags_for(const char* slots) {
  return Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE |
         (fills(slots, 't') || fills(slots, 'c') ? Py_TPFLAGS_HAVE_GC : 0);
}

static PyObject* make_static(int pretended, const char* slots) {
  static PyTypeObject blank = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "classes.Task"};
  PyTypeObject* const type = (PyTypeObject*)PyMem_RawMalloc(sizeof(PyTypeObject)); /* never freed */
  int failed;
  if (type == NULL) {
    return PyErr_NoMemory();
  }
  *type = blank;
  type->tp_basicsize = sizeof(Task);
  type->tp_flags = flags_for(slots);
  type->tp_base = &PyGreenlet_Type;
  type->tp_getset = attributes;
  type->tp_traverse = traverse_for(slots);
  type->tp_clear = fills(slots, 'c') ? clear : NULL;
  type->tp_dealloc = fills(slots, 'd') ? dealloc : NULL;
  type->tp_finalize = fills(slots, 'f') ? finalize : NULL;
  if (pretended) {
    type->tp_flags |= Py_TPFLAGS_HEAPTYPE;
  }
  failed = PyType_Ready(type) < 0;
  type->tp_flags &= ~Py_TPFLAGS_HEAPTYPE;
  if (failed) {
    return NULL;
  }
  Py_INCREF(type);
  return (PyObject*)type;
}

static PyObject* make_heap(const char* slots) {
  PyType_Slot filled[7] = {{Py_tp_base, &PyGreenlet_Type}, {Py_tp_getset, attributes}, {0, NULL}};
  PyType_Spec spec = {"classes.Task", sizeof(Task), 0, 0, filled};
  int count = 2;
  spec.flags = (unsigned int)flags_for(slots);
#define FILL(wanted, number, function)                     \
  if (wanted) {                                            \
    filled[count].slot = number;                           \
    filled[count++].pfunc = __extension__(void*) function; \
  }
  FILL(traverse_for(slots) != NULL, Py_tp_traverse, traverse_for(slots))
  FILL(fills(slots, 'c'), Py_tp_clear, clear)
  FILL(fills(slots, 'd'), Py_tp_dealloc, dealloc)
  FILL(fills(slots, 'f'), Py_tp_finalize, finalize)
  filled[count].slot = 0;
  return PyType_FromSpec(&spec);
}

static PyObject* make(PyObject* Py_UNUSED(module), PyObject* args) {
  const char *kind, *slots;
  if (!PyArg_ParseTuple(args, "ss", &kind, &slots)) {
    return NULL;
  }
  return strcmp(kind, "heap") == 0 ? make_heap(slots)
                                   : make_static(strcmp(kind, "pretended") == 0, slots);
}

static PyMethodDef methods[] = {
    {"make", make, METH_VARARGS, NULL},
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
    PyModuleDef_HEAD_INIT, "classes", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_classes(void) { return PyModuleDef_Init(&definition); }
