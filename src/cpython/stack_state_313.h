// What CPython 3.13 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include "cpython/saved_fields.h"

namespace greenlet::cpython {

// Python calls that are under way.
using PythonDepth =
    Depth<&PyThreadState::py_recursion_limit, &PyThreadState::py_recursion_remaining>;

// What limits how deep C calls may nest.
using CCallDepth = RemainingCCalls<&PyThreadState::c_recursion_remaining, Py_C_RECURSION_LIMIT>;

using SavedFields = Fields<                       //
    CurrentFrame<&PyThreadState::current_frame>,  //
    Copied<&PyThreadState::previous_executor>,    //
    HandledExceptions,                            // exc_info
    Context,                                      // context, context_ver
    DataStack,                                    // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                  // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,   //
    CCallDepth,                                   // c_recursion_remaining
    Copied<&PyThreadState::delete_later>>;        //

using CallOperands = Operands;

}  // namespace greenlet::cpython
