// The capsule greenlet._C_API: the table of include/greenlet/greenlet.h.
#pragma once

#include <Python.h>

#include "core/module_state.h"

namespace greenlet::module {

// A new capsule for this interpreter's table; null with an exception set on failure.
PyObject* make_capi(const core::ModuleState& state);

}  // namespace greenlet::module
