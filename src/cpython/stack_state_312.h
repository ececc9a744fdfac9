// What CPython 3.12 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include "cpython/saved_fields.h"
#include "cpython/saved_fields_cframe.h"

namespace greenlet::cpython {

struct CFrame : CFrameBase {
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept { tstate->cframe = cframe; }
};

// Objects whose deallocation waits because too many are nested (CPython's trashcan).
struct Trash {
  int nesting = 0;
  PyObject* delete_later = nullptr;

  void start(const NewStack&) noexcept {
    nesting = 0;
    delete_later = nullptr;
  }
  void save(PyThreadState* tstate, const ImplFields&) noexcept {
    nesting = tstate->trash.delete_nesting;
    delete_later = tstate->trash.delete_later;
  }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->trash.delete_nesting = nesting;
    tstate->trash.delete_later = delete_later;
  }
};

// Python calls that are under way.
using PythonDepth =
    Depth<&PyThreadState::py_recursion_limit, &PyThreadState::py_recursion_remaining>;

// What limits how deep C calls may nest; see BorrowedStack.
using CCallDepth = RemainingCCalls<&PyThreadState::c_recursion_remaining, C_RECURSION_LIMIT>;

using SavedFields = Fields<                      //
    CFrame,                                      // cframe
    HandledExceptions,                           // exc_info
    ContextVariables,                            // context, context_ver
    DataStack,                                   // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                 // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,  // extra calls while a RecursionError is handled
    CCallDepth,                                  // c_recursion_remaining
    Trash>;                                      // trash

// Frames do not always know how many of their values are in use; see StackState::set_operands().
using CallOperands = Operands;

}  // namespace greenlet::cpython
