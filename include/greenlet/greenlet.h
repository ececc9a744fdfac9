/* The C API of greenlet, for C and C++.
 *
 *   #include <greenlet/greenlet.h>
 *
 *   if (PyGreenlet_Import() < 0) return NULL;    once in each source file that uses the API,
 *                                                before anything else of it: the table is static
 *
 * The object layout and the order of the table are ABI: compiled programs depend on both.
 */
#ifndef GREENLET_GREENLET_H
#define GREENLET_GREENLET_H

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this C API, not of the package. */
#define GREENLET_VERSION "1.0.0"

/* A greenlet. Compiled subclasses append their fields behind it, so it never grows. */
typedef struct PyGreenlet {
  PyObject_HEAD
  PyObject* weakreflist;
  PyObject* dict;
  void* pimpl; /* opaque */
} PyGreenlet;

/* What the capsule "greenlet._C_API" points at: twelve pointers. A wrong argument (NULL, another
 * type) gives an exception and the error value of the entry: NULL, -1. */
typedef struct PyGreenlet_CAPI {
  PyTypeObject* type;
  PyObject* error;
  PyObject* exit;
  PyGreenlet* (*create)(PyObject* run, PyGreenlet* parent);
  PyGreenlet* (*get_current)(void);
  PyObject* (*throw_)(PyGreenlet* self, PyObject* typ, PyObject* val, PyObject* tb);
  PyObject* (*switch_)(PyGreenlet* self, PyObject* args, PyObject* kwargs);
  int (*set_parent)(PyGreenlet* self, PyGreenlet* parent);
  int (*is_main)(PyGreenlet* self);
  int (*is_started)(PyGreenlet* self);
  int (*is_active)(PyGreenlet* self);
  PyGreenlet* (*get_parent)(PyGreenlet* self);
} PyGreenlet_CAPI;

static const PyGreenlet_CAPI* PyGreenlet_CAPI_table = NULL;

/* Imports greenlet and finds its table. 0, or -1 with an exception set. */
static inline int PyGreenlet_Import(void) {
  PyGreenlet_CAPI_table = (const PyGreenlet_CAPI*)PyCapsule_Import("greenlet._C_API", 0);
  return PyGreenlet_CAPI_table != NULL ? 0 : -1;
}

/* Objects of the module; borrowed, and alive as long as it is. Macros, as `&PyGreenlet_Type` must
 * be the type. */
#define PyGreenlet_Type (*PyGreenlet_CAPI_table->type)
#define PyExc_GreenletError (PyGreenlet_CAPI_table->error)
#define PyExc_GreenletExit (PyGreenlet_CAPI_table->exit)

/* Is it a greenlet, or an instance of a subclass? */
#define PyGreenlet_Check(op) PyObject_TypeCheck((PyObject*)(op), &PyGreenlet_Type)

/* greenlet(run, parent); either may be NULL. New reference, or NULL with an exception. */
static inline PyGreenlet* PyGreenlet_New(PyObject* run, PyGreenlet* parent) {
  return PyGreenlet_CAPI_table->create(run, parent);
}

/* New reference to the greenlet that is running in this thread; NULL with RuntimeError while the
 * interpreter finalizes. */
static inline PyGreenlet* PyGreenlet_GetCurrent(void) {
  return PyGreenlet_CAPI_table->get_current();
}

/* self.throw(typ, val, tb); val and tb may be NULL. New reference to what a later switch brings
 * back here, or NULL with an exception. */
static inline PyObject* PyGreenlet_Throw(PyGreenlet* self, PyObject* typ, PyObject* val,
                                         PyObject* tb) {
  return PyGreenlet_CAPI_table->throw_(self, typ, val, tb);
}

/* self.switch(*args, **kwargs); args is a tuple or NULL, kwargs a dict or NULL. New reference to
 * what a later switch brings back here, or NULL with an exception. */
static inline PyObject* PyGreenlet_Switch(PyGreenlet* self, PyObject* args, PyObject* kwargs) {
  return PyGreenlet_CAPI_table->switch_(self, args, kwargs);
}

/* self.parent = parent. 0, or -1 with an exception. */
static inline int PyGreenlet_SetParent(PyGreenlet* self, PyGreenlet* parent) {
  return PyGreenlet_CAPI_table->set_parent(self, parent);
}

/* self.parent as a new reference. NULL without an exception for a greenlet that has none. */
static inline PyGreenlet* PyGreenlet_GetParent(PyGreenlet* self) {
  return PyGreenlet_CAPI_table->get_parent(self);
}

/* The old name of PyGreenlet_GetParent. */
static inline PyGreenlet* PyGreenlet_GET_PARENT(PyGreenlet* self) {
  return PyGreenlet_CAPI_table->get_parent(self);
}

/* Is it the main greenlet of its thread? 1, 0, or -1 with an exception. */
static inline int PyGreenlet_MAIN(PyGreenlet* self) { return PyGreenlet_CAPI_table->is_main(self); }

/* Has it been started, be it dead by now or not? 1, 0, or -1 with an exception. */
static inline int PyGreenlet_STARTED(PyGreenlet* self) {
  return PyGreenlet_CAPI_table->is_started(self);
}

/* Is it started and not dead? 1, 0, or -1 with an exception. */
static inline int PyGreenlet_ACTIVE(PyGreenlet* self) {
  return PyGreenlet_CAPI_table->is_active(self);
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GREENLET_GREENLET_H */
