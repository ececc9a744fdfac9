// The functions that greenlet.timeline wraps.
#pragma once

#include <Python.h>

namespace greenlet::module {

extern PyMethodDef timeline_functions[];

}  // namespace greenlet::module
