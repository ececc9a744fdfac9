// The bounds of the C stack in thread states that CPython makes while a greenlet runs.
//
// CPython 3.14+ asks the C library for the bounds of the OS thread's stack when it attaches a
// thread state for the first time (ceval.c, _Py_InitializeRecursionLimits()). In a greenlet another
// stack runs. With the wrong bounds CPython takes that stack for exhausted whenever it deallocates
// an object that the collector tracks: it puts the object aside and never deallocates it. And
// CPython does not notice the end of the stack, so deep recursion ends in a crash.
//
// The thread states of greenlets are not concerned, because a switch sets the right bounds. Thread
// states that are made in a greenlet are: concurrent.interpreters makes one for each call, and C
// code may make one with PyThreadState_New().
#pragma once

#include <Python.h>

#include <cstddef>

#include "cpython/impl_fields.h"

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
// the stack they are made on. Called at each import.
void watch_new_thread_states(FindStack find) noexcept;

// Gives the calling thread's state the bounds of the stack that runs. It may have those of another
// stack, if C code keeps thread states and attaches them on several stacks.
void correct_stack_limits(PyThreadState* tstate, const ImplFields& impl) noexcept;

}  // namespace greenlet::cpython
