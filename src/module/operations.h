// What Python's methods and the C API share: checked arguments in, core's primitives called.
#pragma once

#include <Python.h>

#include "core/greenlet.h"
#include "core/message.h"
#include "core/thread.h"

namespace greenlet::module {

// A new, unstarted greenlet whose parent is the running one. For tp_new. Before, it ends those of
// this thread that other threads dropped; TypeError for a class with abstract methods.
PyObject* new_greenlet(PyTypeObject* type, PyObject* args, PyObject* kwargs);

// For tp_init: greenlet.__init__(run, parent), both may be null.
int initialize(core::Greenlet& greenlet, PyObject* run, PyObject* parent);

// greenlet.getcurrent(): a new reference to the running greenlet of the calling thread, after the
// thread has killed its greenlets that other threads dropped. RuntimeError while the interpreter
// finalizes.
PyObject* get_current();

// Switches to `target`, or to whoever stands in for it, after greenlets of this thread that other
// threads dropped have been ended. Returns what the next switch back brings.
PyObject* send(core::Greenlet& target, core::Message message, const core::Operands& operands = {});

// greenlet.throw(type, value, traceback); value and traceback may be null or None. Errors in these
// arguments are raised here; errors while the exception is made are raised in the target.
PyObject* throw_into(core::Greenlet& target, PyObject* type, PyObject* value, PyObject* traceback,
                     const core::Operands& operands = {});

// greenlet.run = value, or del greenlet.run if `value` is null.
int set_run(core::Greenlet& greenlet, PyObject* value);

// greenlet.parent = value; null stands for deletion, which is refused.
int set_parent(core::Greenlet& greenlet, PyObject* value);

}  // namespace greenlet::module
