/* The C API of greenlet, for C99, C++11 and what came after them.
 *
 *   #include <greenlet/greenlet.h>
 *
 *   PyGreenlet_Import();                        once in each source file that uses the API, before
 *   if (_PyGreenlet_API == NULL) return NULL;   anything else of it: the pointer is static
 *
 * The object layout and the order of the table are ABI: compiled programs depend on both. What
 * looks like a function is a macro for a function pointer, as programs ask with #ifdef which of
 * them there are; it can be called, and passed on as any other pointer.
 */
#ifndef Py_GREENLETOBJECT_H /* the name that programs know */
#define Py_GREENLETOBJECT_H

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this C API, not of the package. */
#define GREENLET_VERSION "1.0.0"

/* What the last field of a greenlet is. */
#ifndef implementation_ptr_t
#define implementation_ptr_t void*
#endif

/* A greenlet. Compiled subclasses append their fields behind it, so it never grows. */
typedef struct _greenlet {
  PyObject_HEAD
  PyObject* weakreflist;
  PyObject* dict;
  implementation_ptr_t pimpl; /* opaque */
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

/* The same by index: _PyGreenlet_API[PyGreenlet_Switch_NUM]. */
#define PyGreenlet_Type_NUM 0
#define PyExc_GreenletError_NUM 1
#define PyExc_GreenletExit_NUM 2
#define PyGreenlet_New_NUM 3
#define PyGreenlet_GetCurrent_NUM 4
#define PyGreenlet_Throw_NUM 5
#define PyGreenlet_Switch_NUM 6
#define PyGreenlet_SetParent_NUM 7
#define PyGreenlet_MAIN_NUM 8
#define PyGreenlet_STARTED_NUM 9
#define PyGreenlet_ACTIVE_NUM 10
#define PyGreenlet_GetParent_NUM 11
#define PyGreenlet_GET_PARENT_NUM PyGreenlet_GetParent_NUM
#define PyGreenlet_API_pointers 12 /* how many there are */

/* The table, by the name and type that programs know; NULL until it is imported. */
static void** _PyGreenlet_API = NULL;

static inline int PyGreenlet_CAPI_import(void) {
  _PyGreenlet_API = (void**)PyCapsule_Import("greenlet._C_API", 0);
  return _PyGreenlet_API != NULL ? 0 : -1;
}

#define PyGreenlet_CAPI_table ((const PyGreenlet_CAPI*)_PyGreenlet_API)

/* int (void): imports greenlet and finds its table. 0, or -1 with an exception set. */
#define PyGreenlet_Import PyGreenlet_CAPI_import

/* Objects of the module; borrowed, and alive as long as it is. `&PyGreenlet_Type` is the type. */
#define PyGreenlet_Type (*PyGreenlet_CAPI_table->type)
#define PyExc_GreenletError (PyGreenlet_CAPI_table->error)
#define PyExc_GreenletExit (PyGreenlet_CAPI_table->exit)

/* int (op), no pointer: is it a greenlet, or an instance of a subclass? Not for NULL. The dots are
 * for an argument with commas of its own. */
#define PyGreenlet_Check(...) PyObject_TypeCheck((PyObject*)(__VA_ARGS__), &PyGreenlet_Type)

/* PyGreenlet* (run, parent): greenlet(run, parent). Either may be NULL; a parent that is None means
 * the running greenlet, too. New reference, or NULL with an exception. */
#define PyGreenlet_New (PyGreenlet_CAPI_table->create)

/* PyGreenlet* (void): new reference to the greenlet that is running in this thread; NULL with
 * RuntimeError while the interpreter finalizes. */
#define PyGreenlet_GetCurrent (PyGreenlet_CAPI_table->get_current)

/* PyObject* (self, typ, val, tb): self.throw(typ, val, tb); val and tb may be NULL. New reference
 * to what a later switch brings back here, or NULL with an exception. */
#define PyGreenlet_Throw (PyGreenlet_CAPI_table->throw_)

/* PyObject* (self, args, kwargs): self.switch(*args, **kwargs); args is a tuple or NULL, kwargs a
 * dict or NULL. None for both or the first delivers None. New reference to what a later switch
 * brings back here, or NULL with an exception: at once, and without a switch, with the one that is
 * set already. */
#define PyGreenlet_Switch (PyGreenlet_CAPI_table->switch_)

/* int (self, parent): self.parent = parent. 0, or -1 with an exception. */
#define PyGreenlet_SetParent (PyGreenlet_CAPI_table->set_parent)

/* PyGreenlet* (self): self.parent as a new reference. NULL without an exception for a greenlet that
 * has none. The second is its old name. */
#define PyGreenlet_GetParent (PyGreenlet_CAPI_table->get_parent)
#define PyGreenlet_GET_PARENT PyGreenlet_GetParent

/* int (self): is it the main greenlet of its thread? 1, 0, or -1 with an exception. */
#define PyGreenlet_MAIN (PyGreenlet_CAPI_table->is_main)

/* int (self): has it been started, be it dead by now or not? 1, 0, or -1 with an exception. */
#define PyGreenlet_STARTED (PyGreenlet_CAPI_table->is_started)

/* int (self): is it started and not dead? 1, 0, or -1 with an exception. */
#define PyGreenlet_ACTIVE (PyGreenlet_CAPI_table->is_active)

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* Py_GREENLETOBJECT_H */
