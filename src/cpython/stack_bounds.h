// The bounds of the C stack in thread states that CPython makes while a greenlet runs.
//
// CPython 3.14+ asks the C library for the bounds of the OS thread's stack when it attaches a
// thread state for the first time (ceval.c, _Py_InitializeRecursionLimits()). In a greenlet that
// is not the stack that runs. With those bounds CPython takes the stack for exhausted whenever it
// deallocates an object that the collector tracks, puts the object aside and never deallocates it;
// and it does not see the end of the stack coming, so deep recursion ends in a crash. The thread
// states of greenlets are not concerned, as a switch brings the right bounds; but those that
// somebody makes in a greenlet are: concurrent.interpreters has a new one for each call, and C code
// may make one with PyThreadState_New().
#pragma once

#include <Python.h>

#include <cstddef>

#include "cpython/thread_anchors.h"

namespace greenlet::cpython {

// A stack is [low, high).
struct StackBounds {
  const std::byte* low = nullptr;
  const std::byte* high = nullptr;
};

// Finds the stack of a greenlet that the calling thread runs on; false if it runs on its own.
// Called with and without an attached thread state.
using FindStack = bool (*)(StackBounds& found) noexcept;

// From now on, in the whole process, thread states that are made in a greenlet get the bounds of
// the stack they are made on. To be called at each import.
void watch_new_thread_states(FindStack find) noexcept;

// The calling thread's state may have been attached on another stack before, by C code that keeps
// thread states and attaches them now here, now there: gives it the bounds of this stack.
void correct_stack_limits(PyThreadState* tstate, const ThreadAnchors& anchors) noexcept;

}  // namespace greenlet::cpython
