/* The C API of greenlet, for C99, C++11 and what came after them.
 *
 *   #include <greenlet/greenlet.h>
 *
 *   PyGreenlet_Import();                        once in each source file that uses the API, before
 *   if (_PyGreenlet_API == NULL) return NULL;   anything else of it: the pointer is static
 *
 * The object layout and the order of the table are ABI: compiled programs depend on both. What
 * looks like a function is a macro, as programs ask with #ifdef which of them there are.
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
typedef struct _greenlet {
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

/* The table, by the name and type that programs know; NULL until it is imported. */
static void** _PyGreenlet_API = NULL;

static inline int PyGreenlet_CAPI_import(void) {
  _PyGreenlet_API = (void**)PyCapsule_Import("greenlet._C_API", 0);
  return _PyGreenlet_API != NULL ? 0 : -1;
}

#define PyGreenlet_CAPI_table ((const PyGreenlet_CAPI*)_PyGreenlet_API)

/* int: imports greenlet and finds its table. 0, or -1 with an exception set. */
#define PyGreenlet_Import() PyGreenlet_CAPI_import()

/* Objects of the module; borrowed, and alive as long as it is. `&PyGreenlet_Type` is the type. */
#define PyGreenlet_Type (*PyGreenlet_CAPI_table->type)
#define PyExc_GreenletError (PyGreenlet_CAPI_table->error)
#define PyExc_GreenletExit (PyGreenlet_CAPI_table->exit)

/* int: is it a greenlet, or an instance of a subclass? Not for NULL. */
#define PyGreenlet_Check(op) PyObject_TypeCheck((PyObject*)(op), &PyGreenlet_Type)

/* PyGreenlet*: greenlet(run, parent); either may be NULL. New reference, or NULL with an
 * exception. */
#define PyGreenlet_New(run, parent) (PyGreenlet_CAPI_table->create((run), (parent)))

/* PyGreenlet*: new reference to the greenlet that is running in this thread; NULL with RuntimeError
 * while the interpreter finalizes. */
#define PyGreenlet_GetCurrent() (PyGreenlet_CAPI_table->get_current())

/* PyObject*: self.throw(typ, val, tb); val and tb may be NULL. New reference to what a later switch
 * brings back here, or NULL with an exception. */
#define PyGreenlet_Throw(self, typ, val, tb) \
  (PyGreenlet_CAPI_table->throw_((self), (typ), (val), (tb)))

/* PyObject*: self.switch(*args, **kwargs); args is a tuple or NULL, kwargs a dict or NULL. New
 * reference to what a later switch brings back here, or NULL with an exception. */
#define PyGreenlet_Switch(self, args, kwargs) \
  (PyGreenlet_CAPI_table->switch_((self), (args), (kwargs)))

/* int: self.parent = parent. 0, or -1 with an exception. */
#define PyGreenlet_SetParent(self, parent) (PyGreenlet_CAPI_table->set_parent((self), (parent)))

/* PyGreenlet*: self.parent as a new reference. NULL without an exception for a greenlet that has
 * none. The second is its old name. */
#define PyGreenlet_GetParent(self) (PyGreenlet_CAPI_table->get_parent((self)))
#define PyGreenlet_GET_PARENT(self) PyGreenlet_GetParent(self)

/* int: is it the main greenlet of its thread? 1, 0, or -1 with an exception. */
#define PyGreenlet_MAIN(self) (PyGreenlet_CAPI_table->is_main((self)))

/* int: has it been started, be it dead by now or not? 1, 0, or -1 with an exception. */
#define PyGreenlet_STARTED(self) (PyGreenlet_CAPI_table->is_started((self)))

/* int: is it started and not dead? 1, 0, or -1 with an exception. */
#define PyGreenlet_ACTIVE(self) (PyGreenlet_CAPI_table->is_active((self)))

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GREENLET_GREENLET_H */
