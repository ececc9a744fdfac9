// The Python type greenlet.greenlet.
#pragma once

#include <Python.h>

#include "core/module_state.h"

namespace greenlet::module {

// The type for `module`, a new reference; null with an exception set on failure. In the main
// interpreter it is a static type, as compiled classes that are static can derive from no other,
// and there is only that one: not to be made again while it is in use. In others it is a new heap
// type.
PyTypeObject* make_greenlet_type(PyObject* module);

}  // namespace greenlet::module
