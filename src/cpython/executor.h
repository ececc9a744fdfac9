// Machine code of CPython's JIT in which a suspended stack waits (3.14+).
#pragma once

#include <Python.h>

#include "cpython/saved_fields.h"

namespace greenlet::cpython {

// The executor in whose machine code the stack waits; null if there is none.
//
// A stack that waits in machine code of the JIT returns into the memory of an executor. CPython
// spares the executor that a thread state names as current, even if its last reference has gone
// (_Py_ClearExecutorDeletionList()). When the interpreter enters itself, its entry frame takes a
// reference to the executor of the caller (_PyEval_EvalFrameDefault()). So the executors further
// out are safe on any stack. The innermost one must be owned while the stack is suspended.
//
// The reference is kept until the stack is left the next time. A loop that waits again and again
// is then found in the same executor, and nothing is counted. The reference may be dropped in the
// middle of a switch: the deallocation of an executor runs no Python code and allocates nothing.
//
// StackState::traverse() does not visit it. Executors refer only to executors, so no cycle leads
// through it back to a greenlet, and the collector must not clear machine code that a stack returns
// into.
//
// 3.13 needs nothing of this. There machine code holds a reference to itself while it runs, and
// previous_executor is a reference on its way from one executor to the next, which no switch
// interrupts.
struct OwnedExecutor {
  PyObject* executor = nullptr;

  static void start(const NewStack&) noexcept {}
  void save(PyThreadState* tstate, const ImplFields&) noexcept {
    if (executor != tstate->current_executor) [[unlikely]] {
      own(tstate->current_executor);
    }
  }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->current_executor = executor;
  }
  void finish() noexcept {
    if (executor != nullptr) [[unlikely]] {
      own(nullptr);
    }
  }

 private:
  [[gnu::cold]] void own(PyObject* current) noexcept;
};

}  // namespace greenlet::cpython
