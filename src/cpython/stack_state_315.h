// What CPython 3.15 keeps per stack. See stack_state.h.
#pragma once

#include <Python.h>

#include <cstdint>

#include "cpython/executor.h"
#include "cpython/saved_fields.h"
#include "cpython/saved_fields_free_threaded.h"

namespace greenlet::cpython {

// The innermost frame. The sampling profiler (Modules/_remote_debugging) takes a chain of frames
// for torn if it does not end at the thread's base frame.
struct FrameAboveBase : CurrentFrame<&PyThreadState::current_frame> {
  void start(const NewStack& stack) noexcept { frame = stack.impl.base_frame; }
};

// The version of the set of monitoring events for which the frames are instrumented. restore() does
// not put it into the thread state: a stack that is entered compares it with the present version.
struct MonitoringVersion {
  static constexpr std::uintptr_t kEventsMask = 0xff;  // _PY_EVAL_EVENTS_MASK

  std::uintptr_t version = 0;

  void start(const NewStack& stack) noexcept { version = of(stack.tstate); }
  void save(PyThreadState* tstate, const ImplFields&) noexcept {
    // RESUME instruments nothing while a trace function runs (`tracing` is not 0 then). So the
    // frames of calls from there may not be instrumented. With `tracing` in its low bits, the saved
    // version equals no version, and the stack catches up when it goes on.
    version = of(tstate) + static_cast<unsigned>(tstate->tracing);
  }
  static void restore(PyThreadState*, const ImplFields&) noexcept {}
  bool must_catch_up(PyThreadState* tstate) const noexcept { return version != of(tstate); }
  // Instruments the frames of the stack, which is the running one, for tools that came or went.
  void catch_up(PyThreadState* tstate) const noexcept;

  // The present version. It changes when the set of monitoring events changes
  // (Python/instrumentation.c). CPython keeps it in the high bits of eval_breaker. The low bits are
  // requests of other threads.
  static std::uintptr_t of(PyThreadState* tstate) noexcept {
    return __atomic_load_n(&tstate->eval_breaker, __ATOMIC_RELAXED) & ~kEventsMask;
  }
};

// Python calls that are under way.
using PythonDepth =
    Depth<&PyThreadState::py_recursion_limit, &PyThreadState::py_recursion_remaining>;

// What limits how deep C calls may nest; see BorrowedStack.
using CCallDepth = CStackLimits;

using SavedFields = Fields<                      //
    CriticalSection,                             // critical_section
    FrameAboveBase,                              // current_frame
    OwnedExecutor,                               // current_executor
    HandledExceptions,                           // exc_info
    ContextVariables,                            // context, context_ver
    DataStack,                                   // datastack_chunk, datastack_top, datastack_limit
    PythonDepth,                                 // py_recursion_remaining
    Copied<&PyThreadState::recursion_headroom>,  // extra calls while a RecursionError is handled
    Copied<&PyThreadState::delete_later>,        // objects whose deallocation waits (trashcan)
    CCallDepth,         // c_stack_top, c_stack_soft_limit, c_stack_hard_limit
    MonitoringVersion,  // the high bits of eval_breaker
    CStackRefs>;        // c_stack_refs

// Frames know how many of their values are in use; see StackState::set_operands().
using CallOperands = NoOperands;

}  // namespace greenlet::cpython
