// What CPython 3.13 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include "cpython/saved_fields.h"

namespace greenlet::cpython {

// Python calls that are under way.
using PythonDepth =
    Depth<&PyThreadState::py_recursion_limit, &PyThreadState::py_recursion_remaining>;

// What limits how deep C calls may nest; see BorrowedStack.
using CCallDepth = RemainingCCalls<&PyThreadState::c_recursion_remaining, Py_C_RECURSION_LIMIT>;

using SavedFields = Fields<                       //
    CurrentFrame<&PyThreadState::current_frame>,  // the innermost Python frame
    Copied<&PyThreadState::previous_executor>,    // machine code of the JIT; see executor.h
    HandledExceptions,                            // exc_info
    ContextVariables,                             // context, context_ver
    DataStack,                                    // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                  // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,   // extra calls while a RecursionError is handled
    CCallDepth,                                   // c_recursion_remaining
    Copied<&PyThreadState::delete_later>>;        // objects whose deallocation waits (trashcan)

// Frames do not always know how many of their values are in use; see StackState::set_operands().
using CallOperands = Operands;

}  // namespace greenlet::cpython
