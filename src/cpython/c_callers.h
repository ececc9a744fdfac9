// What C functions of CPython own while a Python function that they called is suspended.
#pragma once

#include <Python.h>

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// Visits the counted references that the C function which called `callee` keeps in variables of its
// own, where that function and what it keeps are known for certain; nothing otherwise, which can
// only leak. `caller` is the Python frame that called the C function.
//
// That is so for class statements alone. For other functions the value stack of `caller` seems to
// tell who is called with what (3.14+), but not when: the same operands lie there before the
// function has taken its references (while it converts arguments), when it has dropped them, and
// when the interpreter drops what was on the stack; each of that may run Python code.
int visit_c_caller(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                   void* arg) noexcept;

}  // namespace greenlet::cpython
