// The fields of a thread state that a switch reads or writes and that CPython's public
// PyThreadState does not show, because they are in the private struct around it
// (_PyThreadStateImpl).
#pragma once

#include <Python.h>

#include <cstdint>

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// The bounds of the C stack. CPython 3.14+ compares the stack pointer with them at every recursive
// call. They mirror three fields of _PyThreadStateImpl: c_stack_top, c_stack_soft_limit,
// c_stack_hard_limit, in this order (layout.cpp checks it).
struct StackLimits {
  std::uintptr_t top = 0;
  std::uintptr_t soft_limit = 0;
  std::uintptr_t hard_limit = 0;

  // The limits that CPython sets for a stack [low, high): tstate_set_stack() in ceval.c.
  static StackLimits of_stack(const void* low, const void* high) noexcept;
};

// Addresses of such fields in one thread state. ImplFields::of() in layout.cpp finds them once per
// thread, by the layout of the running interpreter, so that a switch does not depend on it. A
// pointer is null if the version has no such field.
struct ImplFields {
  StackLimits* stack_limits = nullptr;        // 3.14+
  void** c_stack_refs = nullptr;              // 3.14+, free-threaded: head of the _PyCStackRef list
  _PyInterpreterFrame* base_frame = nullptr;  // 3.15+: every chain of frames must end here

  static ImplFields of(PyThreadState* tstate) noexcept;
};

}  // namespace greenlet::cpython
