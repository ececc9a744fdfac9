// What the methods of the type and the C API share: they check arguments and call core/.
#pragma once

#include <Python.h>

#include "core/greenlet.h"
#include "core/message.h"
#include "core/thread.h"

namespace greenlet::module {

// tp_new: a new greenlet whose parent is the running one. First kills greenlets of this thread that
// other threads have dropped. TypeError for a class with abstract methods.
PyObject* new_greenlet(PyTypeObject* type, PyObject* args, PyObject* kwargs);

// For tp_init: greenlet.__init__(run, parent). Both may be null.
int initialize(core::Greenlet& greenlet, PyObject* run, PyObject* parent);

// greenlet.getcurrent(): a new reference to the running greenlet of the calling thread, after the
// thread has killed its greenlets that other threads dropped. RuntimeError while the interpreter
// finalizes.
PyObject* get_current();

// Thread::deliver() for the calling thread, after it has killed greenlets that other threads have
// dropped. Returns what the next switch back brings.
PyObject* send(core::Greenlet& target, core::Message message, const core::Operands& operands = {});

// greenlet.throw(type, value, traceback); value and traceback may be null or None. Wrong arguments
// raise an exception here. An error while the exception is made is raised in the target.
PyObject* throw_into(core::Greenlet& target, PyObject* type, PyObject* value, PyObject* traceback,
                     const core::Operands& operands = {});

// The text of the AttributeError for `run` of a main greenlet.
inline constexpr const char* kNoRunOfMain = "Main greenlets do not have a run attribute.";
// greenlet.run = value, or del greenlet.run if `value` is null.
int set_run(core::Greenlet& greenlet, PyObject* value);

// greenlet.parent = value. A null `value` means del greenlet.parent, which raises AttributeError.
int set_parent(core::Greenlet& greenlet, PyObject* value);

}  // namespace greenlet::module
