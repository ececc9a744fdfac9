// The Python type greenlet.greenlet.
#pragma once

#include <Python.h>

#include "core/module_state.h"

namespace greenlet::module {

// To be called before an instance of `type` can be suspended: if the class defines __del__, which
// then stands in for our finalizer, has both called.
void adopt_finalizer(PyTypeObject* type, const core::ModuleState& state);

// A new heap type for `module`; null with an exception set on failure.
PyTypeObject* make_greenlet_type(PyObject* module);

}  // namespace greenlet::module
