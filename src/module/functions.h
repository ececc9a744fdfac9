// The functions of the extension module, but for those in stacks.h.
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyMethodDef functions[];

}  // namespace greenlet::module
