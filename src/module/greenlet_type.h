// The Python type greenlet.greenlet.
#pragma once

#include <Python.h>

namespace greenlet::module {

// A new heap type for `module`; null with an exception set on failure.
PyTypeObject* make_greenlet_type(PyObject* module);

}  // namespace greenlet::module
