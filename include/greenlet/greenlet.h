/* The C API of greenlet, for C99, C++11 and later.
 *
 *   #include <greenlet/greenlet.h>
 *
 *   PyGreenlet_Import();                        in each source file that uses the API, before any
 *   if (_PyGreenlet_API == NULL) return NULL;   other use, because the pointer is static
 *
 * The object layout and the order of the table are ABI: compiled programs depend on both. Each
 * function of the API is a macro for a function pointer, because programs ask with #ifdef which
 * functions there are. It can be called, and passed on like any other pointer.
 */
#ifndef Py_GREENLETOBJECT_H /* the name that programs know */
#define Py_GREENLETOBJECT_H

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this C API, not of the package. */
#define GREENLET_VERSION "1.0.0"

/* The type of the last field of a greenlet. */
#ifndef implementation_ptr_t
#define implementation_ptr_t void*
#endif

/* A greenlet. Compiled subclasses append their fields to it, so it never grows. */
typedef struct _greenlet {
  PyObject_HEAD
  PyObject* weakreflist;
  PyObject* dict;
  implementation_ptr_t pimpl; /* opaque */
} PyGreenlet;

/* What a switch hook is told: a set of bits. */
#define PyGreenlet_SWITCH_THROW 1    /* the target receives an exception, and no value */
#define PyGreenlet_SWITCH_FINISHED 2 /* the origin has finished */

/* A function for profilers, called after each switch in the thread of both: `origin` is the
 * greenlet that was left, `target` the one that goes on; borrowed. It must not switch, run Python
 * code, or set an exception, and none is set. */
typedef void (*PyGreenlet_SwitchHook)(int what, PyObject* origin, PyObject* target, void* data);

/* The capsule "greenlet._C_API" points to this table. The first twelve pointers are those of every
 * greenlet 1.0 and later; for the last one see PyGreenlet_SetSwitchHook().
 *
 * Each function needs an attached thread state (the GIL, if the build has one). A wrong argument,
 * NULL or another type, is a TypeError. The function then returns its error value, NULL or -1. */
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
  int (*set_switch_hook)(PyGreenlet_SwitchHook hook, void* data);
} PyGreenlet_CAPI;

/* The same pointers by index: `_PyGreenlet_API[PyGreenlet_Switch_NUM]`. */
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
#define PyGreenlet_API_pointers 12 /* the number of pointers that every greenlet has */

/* The table, with the name and type that programs use; NULL until it is imported. */
static void** _PyGreenlet_API = NULL;

static inline int PyGreenlet_CAPI_import(void) {
  _PyGreenlet_API = (void**)PyCapsule_Import("greenlet._C_API", 0);
  return _PyGreenlet_API != NULL ? 0 : -1;
}

#define PyGreenlet_CAPI_table ((const PyGreenlet_CAPI*)_PyGreenlet_API)

/* int (void): imports greenlet and finds its table. 0, or -1 with an exception, such as
 * ImportError. Call it in each source file before anything else of the API. */
#define PyGreenlet_Import PyGreenlet_CAPI_import

/* Objects of the module, borrowed; they live as long as the module. `&PyGreenlet_Type` is the type.
 */
#define PyGreenlet_Type (*PyGreenlet_CAPI_table->type)
#define PyExc_GreenletError (PyGreenlet_CAPI_table->error)
#define PyExc_GreenletExit (PyGreenlet_CAPI_table->exit)

/* int (op), not a pointer: whether it is a greenlet, or an instance of a subclass; 1 or 0, without
 * an exception. Do not pass NULL. (The macro has dots, because the argument may contain commas.) */
#define PyGreenlet_Check(...) PyObject_TypeCheck((PyObject*)(__VA_ARGS__), &PyGreenlet_Type)

/* PyGreenlet* (run, parent): does `greenlet(run, parent)`. Either may be NULL. Without a parent, or
 * with None, the running greenlet is the parent. New reference, or NULL with an exception:
 * TypeError if the parent is no greenlet, MemoryError. */
#define PyGreenlet_New (PyGreenlet_CAPI_table->create)

/* PyGreenlet* (void): new reference to the running greenlet of this thread. NULL with RuntimeError
 * while the interpreter finalizes, or with MemoryError at the first use in a thread. */
#define PyGreenlet_GetCurrent (PyGreenlet_CAPI_table->get_current)

/* PyObject* (self, typ, val, tb): does `self.throw(typ, val, tb)`; `val` and `tb` may be NULL. New
 * reference to what the next switch back brings, or NULL with an exception. What is thrown takes
 * the place of an exception that is set before the call. */
#define PyGreenlet_Throw (PyGreenlet_CAPI_table->throw_)

/* PyObject* (self, args, kwargs): does `self.switch(*args, **kwargs)`; `args` is a tuple or NULL,
 * `kwargs` a dict or NULL. With None as `args`, and None or nothing as `kwargs`, the target
 * receives None. New reference to what the next switch back brings, or NULL with an exception. If
 * an exception is set before the call, it returns NULL at once, without a switch. */
#define PyGreenlet_Switch (PyGreenlet_CAPI_table->switch_)

/* int (self, parent): does `self.parent = parent`. 0, or -1 with an exception: ValueError for a
 * cycle, or for a started greenlet and a parent of another thread; AttributeError for a main
 * greenlet. */
#define PyGreenlet_SetParent (PyGreenlet_CAPI_table->set_parent)

/* PyGreenlet* (self): new reference to `self.parent`. NULL without an exception for a greenlet
 * without a parent, which is a main greenlet. PyGreenlet_GET_PARENT() is the old name. */
#define PyGreenlet_GetParent (PyGreenlet_CAPI_table->get_parent)
#define PyGreenlet_GET_PARENT PyGreenlet_GetParent

/* int (self): whether it is the main greenlet of its thread. 1, 0, or -1 with an exception. */
#define PyGreenlet_MAIN (PyGreenlet_CAPI_table->is_main)

/* int (self): whether it has started, and perhaps finished. 1, 0, or -1 with an exception. */
#define PyGreenlet_STARTED (PyGreenlet_CAPI_table->is_started)

/* int (self): whether it has started and is not dead. 1, 0, or -1 with an exception. */
#define PyGreenlet_ACTIVE (PyGreenlet_CAPI_table->is_active)

/* Sets the switch hook of all threads of the interpreter, from their next switch on; NULL removes
 * it. `data` is passed on to it. There is one hook: -1 with RuntimeError if another one is set
 * (remove only your own). -1 with RuntimeError also if the greenlet that is loaded has no hooks, as
 * the published one: the context of its capsule tells the number of pointers. A switch without a
 * hook costs nothing more. */
static inline int PyGreenlet_SetSwitchHook(PyGreenlet_SwitchHook hook, void* data) {
  int result = -1;
  PyObject* const module = PyImport_ImportModule("greenlet");
  PyObject* const capsule = module != NULL ? PyObject_GetAttrString(module, "_C_API") : NULL;
  if (capsule != NULL) {
    if ((size_t)PyCapsule_GetContext(capsule) > 12) {
      result = PyGreenlet_CAPI_table->set_switch_hook(hook, data);
    } else if (!PyErr_Occurred()) {
      PyErr_SetString(PyExc_RuntimeError, "this greenlet has no switch hooks");
    }
  }
  Py_XDECREF(capsule);
  Py_XDECREF(module);
  return result;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* Py_GREENLETOBJECT_H */
