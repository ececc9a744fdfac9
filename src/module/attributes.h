// What Python reads and sets on a greenlet: run, parent, gr_frame, gr_context, dead, and its
// repr().
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyGetSetDef attributes[];

PyObject* repr(PyObject* self);

}  // namespace greenlet::module
