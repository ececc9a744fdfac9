// What Python reads and sets on a greenlet: __dict__, run, parent, gr_frame, gr_context, dead and
// _stack_saved, and its repr(). The slots of the type that greenlet_type.cpp fills with them.
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyGetSetDef attributes[];

PyObject* repr(PyObject* self);

}  // namespace greenlet::module
