// Where the frames of a stack are, without a frame object for any of them.
#pragma once

#include <Python.h>

#include <cstddef>

#include "cpython/stack_state.h"

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// A Python frame: its code, and the instruction that it is at.
struct CodePosition {
  PyCodeObject* code = nullptr;
  int offset = 0;  // of the instruction, in bytes, as PyFrame_GetLasti() tells it
};

// Puts the frames of a stack, the innermost one first, into `found`, which has room for `most`;
// returns how many there are, which may be more. Runs no Python code, allocates nothing, takes no
// references. The stack must not run meanwhile, and its thread must be the calling one, or be
// stopped, or wait for the GIL.
std::size_t trace_suspended(const StackState& stack, CodePosition* found,
                            std::size_t most) noexcept;
// The same for the stack that the thread of `tstate` runs.
std::size_t trace_running(PyThreadState* tstate, CodePosition* found, std::size_t most) noexcept;
// The same, but stops at `most` frames, however deep the stack is.
std::size_t trace_innermost(PyThreadState* tstate, CodePosition* found, std::size_t most) noexcept;

}  // namespace greenlet::cpython
