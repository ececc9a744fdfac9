// Where CPython keeps, per thread, what the public PyThreadState does not show.
#pragma once

#include <Python.h>

#include <cstdint>

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// The bounds that CPython 3.14+ holds against the stack pointer at every recursive call
// (_PyThreadStateImpl.c_stack_top, c_stack_soft_limit, c_stack_hard_limit, in this order).
struct StackLimits {
  std::uintptr_t top = 0;
  std::uintptr_t soft_limit = 0;
  std::uintptr_t hard_limit = 0;

  // The limits CPython itself would set for a stack [low, high) (ceval.c, tstate_set_stack()).
  static StackLimits of_stack(const void* low, const void* high) noexcept;
};

// Addresses inside _PyThreadStateImpl, found once per thread by the layout of the interpreter
// that is running (see layout.h), so that a switch need not know it. Null where the version has
// no such field.
struct ThreadAnchors {
  StackLimits* stack_limits = nullptr;        // 3.14+
  void** c_stack_refs = nullptr;              // 3.14+, free-threaded: head of the _PyCStackRef list
  _PyInterpreterFrame* base_frame = nullptr;  // 3.15+: where every chain of frames must end

  static ThreadAnchors of(PyThreadState* tstate) noexcept;
};

// The calling thread's state, or null; a few instructions, sets no exception.
inline PyThreadState* current_thread_state() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

// Unique among the thread states that an interpreter has and has had (PyThreadState_GetID()).
inline std::uint64_t id_of(const PyThreadState* tstate) noexcept { return tstate->id; }

}  // namespace greenlet::cpython
