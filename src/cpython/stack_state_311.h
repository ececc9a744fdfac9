// What CPython 3.11 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include <algorithm>

#include "cpython/saved_fields.h"
#include "cpython/saved_fields_cframe.h"

namespace greenlet::cpython {

// 3.11 keeps "is anybody tracing" in each _PyCFrame and hands it on as calls nest and return. A
// tracer that was set or removed on another stack counts for the whole thread.
struct CFrame : CFrameBase {
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    constexpr auto kUsesTracing = 255;  // as _PyCFrame.use_tracing says in cpython/pystate.h
    const bool traced = tstate->tracing == 0 && (tstate->c_tracefunc || tstate->c_profilefunc);
    cframe->use_tracing = traced ? kUsesTracing : 0;
    tstate->cframe = cframe;
  }
};

// 3.11 counts Python and C calls together.
struct CallDepth : Depth<&PyThreadState::recursion_limit, &PyThreadState::recursion_remaining> {
  // While one of these lives, calls of the running stack count from the depth of `owner`, if that
  // is the deeper one of the two: a stack may be as deep as the limit says.
  class Borrowed {
   public:
    Borrowed(PyThreadState* tstate, const ImplFields&, const CallDepth& owner) noexcept
        : tstate_(tstate),
          // At least zero calls remain: CPython ends the process if the number is far below zero.
          taken_(
              std::clamp(owner.depth - of(tstate), 0, std::max(tstate->recursion_remaining, 0))) {
      tstate->recursion_remaining -= taken_;
    }
    ~Borrowed() { tstate_->recursion_remaining += taken_; }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

   private:
    PyThreadState* const tstate_;
    const int taken_;
  };
};

using SavedFields = Fields<                      //
    CFrame,                                      // cframe
    HandledExceptions,                           // exc_info
    ContextVariables,                            // context, context_ver
    DataStack,                                   // datastack_chunk, datastack_top, datastack_limit
    CallDepth,                                   // recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,  // extra calls while a RecursionError is handled
    Copied<&PyThreadState::trash_delete_nesting>,  // deallocations under way (trashcan)
    Copied<&PyThreadState::trash_delete_later>>;   // objects whose deallocation waits

// What limits how deep C calls may nest; see BorrowedStack.
using CCallDepth = CallDepth;

// Frames do not always know how many of their values are in use; see StackState::set_operands().
using CallOperands = Operands;

}  // namespace greenlet::cpython
