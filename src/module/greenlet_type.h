// The Python type greenlet.greenlet.
#pragma once

#include <Python.h>

#include "core/module_state.h"

namespace greenlet::module {

// The type for `module`, a new reference; null with an exception set on failure. In the main
// interpreter it is the one static type, because static compiled classes can only derive from
// static types. Do not make it a second time while it is in use. In other interpreters it is a new
// heap type.
PyTypeObject* make_greenlet_type(PyObject* module);

}  // namespace greenlet::module
