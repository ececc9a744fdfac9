// The functions of the extension module that greenlet.inspect wraps.
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyMethodDef inspect_functions[];

}  // namespace greenlet::module
