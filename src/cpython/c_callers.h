// What C functions of CPython own while a Python function that they called is suspended.
#pragma once

#include <Python.h>

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// Visits the counted references that the C function which called `callee` keeps in variables of its
// own, where that function and what it keeps are known for certain; nothing otherwise, which can
// only leak. `caller` is the Python frame that called the C function.
int visit_c_caller(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                   void* arg) noexcept;

}  // namespace greenlet::cpython
