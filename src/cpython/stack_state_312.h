// What CPython 3.12 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include <utility>

#include "cpython/saved_fields.h"

namespace greenlet::cpython {

// The innermost _PyCFrame. Each entry of the interpreter has one on the C stack, which leads to the
// innermost frame; the stack's own is the outermost.
struct CFrame {
  _PyCFrame* cframe = nullptr;
  _PyCFrame root = {};

  void start(const NewStack&) noexcept {
    root = {};
    cframe = &root;
  }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { cframe = tstate->cframe; }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept { tstate->cframe = cframe; }
  void finish() noexcept { cframe = nullptr; }

  _PyInterpreterFrame* innermost() const noexcept {
    return cframe != nullptr ? cframe->current_frame : nullptr;
  }
  // A new reference to the innermost complete frame; null without an exception if there is none.
  // CPython makes a frame object only for what a thread state runs. So for one call the calling
  // thread's state seems to run the suspended frames.
  PyFrameObject* innermost_object(PyThreadState* tstate) const noexcept {
    if (cframe == nullptr) {
      return nullptr;
    }
    _PyCFrame* const running = std::exchange(tstate->cframe, cframe);
    PyFrameObject* const object = PyThreadState_GetFrame(tstate);
    tstate->cframe = running;
    return object;
  }
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
    Context,                                     // context, context_ver
    DataStack,                                   // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                 // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,  // extra calls while a RecursionError is handled
    CCallDepth,                                  // c_recursion_remaining
    Trash>;                                      // trash

// Frames do not always know how many of their values are in use; see StackState::set_operands().
using CallOperands = Operands;

}  // namespace greenlet::cpython
