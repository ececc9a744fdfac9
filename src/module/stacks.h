// The functions of the extension module that greenlet.stacks wraps.
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyMethodDef stack_functions[];

// Reads the environment variables GREENLET_STACK_SIZE and GREENLET_REPORT_OVERFLOW, once in a
// process. Returns -1 with an exception set if the warning about a wrong value is an error. A
// warning runs Python code, so no other thread may wait for this one when it calls this.
int read_stack_environment();

}  // namespace greenlet::module
