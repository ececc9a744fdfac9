/* A program with objects of libgc, which finds them from the stack of the thread. */
#include <Python.h>
#include <gc.h>

enum { COUNT = 2000 };

struct node {
  struct node *next;
  long number;
};

/* use(function): makes a list, calls function(), collects, and returns how long the list is. */
static PyObject *use(PyObject *self, PyObject *function) {
  struct node *first = NULL;
  (void)self;
  for (int i = 0; i < COUNT; ++i) {
    struct node *node = GC_MALLOC(sizeof *node);
    node->next = first;
    node->number = i;
    first = node;
  }
  PyObject *result = PyObject_CallObject(function, NULL);
  if (result == NULL) return NULL;
  Py_DECREF(result);
  GC_gcollect();
  for (int i = 0; i < 10 * COUNT; ++i) {
    struct node *node = GC_MALLOC(sizeof *node);
    node->number = -1;
  }
  long left = 0;
  for (const struct node *node = first; node != NULL; node = node->next) {
    left += node->number == COUNT - 1 - left;
  }
  return PyLong_FromLong(left);
}

static PyObject *init(PyObject *self, PyObject *unused) {
  (void)self;
  (void)unused;
  GC_INIT();
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_O, NULL}, {"init", init, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "scanned", NULL, 0,    methods,
                                 NULL,                  NULL,      NULL, NULL};

PyMODINIT_FUNC PyInit_scanned(void) { return PyModuleDef_Init(&definition); }
