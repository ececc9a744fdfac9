// Changing the executor that a suspended stack owns, and what 3.14 needs for that.
#include <Python.h>

#if PY_VERSION_HEX >= 0x030e0000

#include <utility>

#include "cpython/executor.h"
#include "cpython/internals.h"

namespace greenlet::cpython {

void OwnedExecutor::own(PyObject* current) noexcept {
#if PY_VERSION_HEX < 0x030f0000
  // 3.14 cannot bring back an executor whose last reference has gone: it frees those without a look
  // at their count, and crashes if one is deallocated again. (The running executor loses its last
  // reference if a C function discards it and then leaves this stack without running Python code.)
  if (current != nullptr && Py_REFCNT(current) == 0) {
    current = nullptr;
  }
  // While 3.14 frees executors it marks the current ones as linked. It takes the mark only from
  // executors that it was about to free. An executor that has been discarded and has an owner keeps
  // the mark, and its deallocation would unlink it from a list that it left long ago.
  if (executor != nullptr) {
    auto& data = reinterpret_cast<_PyExecutorObject*>(executor)->vm_data;
    if (!data.valid) {
      data.linked = 0;
    }
  }
#endif
  PyObject* const old = std::exchange(executor, Py_XNewRef(current));
  Py_XDECREF(old);
}

}  // namespace greenlet::cpython

#endif
