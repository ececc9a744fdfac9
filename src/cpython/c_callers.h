// What C functions of CPython own while a Python function that they called is suspended.
#pragma once

#include <Python.h>

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// `caller` is a Python frame that called a C function, and that function called `callee`. Visits
// the counted references that the C function keeps in its own variables, if the function and these
// references are known for certain. Otherwise visits nothing, which can only leak.
//
// They are known only for class statements. For other functions the value stack of `caller` seems
// to tell which function is called with which operands (3.14+), but it does not tell how far the
// call has come. The same operands lie there before the function has taken its references (while it
// converts arguments), after it has dropped them, and while the interpreter drops what was on the
// stack. In each of these moments Python code may run.
int visit_c_caller(_PyInterpreterFrame* callee, _PyInterpreterFrame* caller, visitproc visit,
                   void* arg) noexcept;

}  // namespace greenlet::cpython
