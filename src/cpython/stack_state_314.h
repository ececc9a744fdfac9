// What CPython 3.14 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include "cpython/executor.h"
#include "cpython/saved_fields.h"
#include "cpython/saved_fields_free_threaded.h"

namespace greenlet::cpython {

// Python calls that are under way.
using PythonDepth =
    Depth<&PyThreadState::py_recursion_limit, &PyThreadState::py_recursion_remaining>;

// What limits how deep C calls may nest; see BorrowedStack.
using CCallDepth = CStackLimits;

using SavedFields = Fields<                       //
    CriticalSection,                              // critical_section
    CurrentFrame<&PyThreadState::current_frame>,  // the innermost Python frame
    OwnedExecutor,                                // current_executor
    HandledExceptions,                            // exc_info
    ContextVariables,                             // context, context_ver
    DataStack,                                    // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                  // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,   // extra calls while a RecursionError is handled
    Copied<&PyThreadState::delete_later>,         // objects whose deallocation waits (trashcan)
    CCallDepth,   // c_stack_top, c_stack_soft_limit, c_stack_hard_limit
    CStackRefs>;  // c_stack_refs

// Frames know how many of their values are in use; see StackState::set_operands().
using CallOperands = NoOperands;

}  // namespace greenlet::cpython
