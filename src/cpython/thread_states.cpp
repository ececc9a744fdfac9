// Finding other thread states of an OS thread, and how far a finalization has come.
#include "cpython/thread_states.h"

#include "cpython/internals.h"
#include "cpython/locks.h"

namespace greenlet::cpython {

bool can_run_python([[maybe_unused]] PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return _PyInterpreterState_GetFinalizing(tstate->interp) == nullptr;
#elif PY_VERSION_HEX >= 0x030c0000
  return !_Py_IsFinalizing() && _PyInterpreterState_GetFinalizing(tstate->interp) == nullptr;
#else
  return !_Py_IsFinalizing();
#endif
}

bool is_living(const PyThreadState* tstate, std::uint64_t id) noexcept {
  PyThreadState* const current = current_thread_state();
  if (tstate == current) {
    return current->id == id;
  }
  bool is_found = false;
  for_each_thread_state([&](const PyThreadState* each) {
    is_found = is_found || (each == tstate && each->id == id);
  });
  return is_found;
}

#if PY_VERSION_HEX >= 0x030c0000

namespace {

bool runs_nothing(const PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030f0000
  return tstate->current_frame == tstate->base_frame;
#elif PY_VERSION_HEX >= 0x030d0000
  return tstate->current_frame == nullptr;
#else
  return tstate->cframe->current_frame == nullptr;
#endif
}

}  // namespace

bool interpreter_may_end_elsewhere(PyThreadState* current) noexcept {
  if (current->interp != PyInterpreterState_Main()) {
    return true;
  }
  const StoppedWorld stopped;
  for (PyThreadState* other = PyInterpreterState_ThreadHead(current->interp); other != nullptr;
       other = PyThreadState_Next(other)) {
    if (other != current && other->thread_id == current->thread_id) {
      return true;
    }
  }
  return false;
}

PyThreadState* idle_thread_state(PyThreadState* current, std::uint64_t before) noexcept {
  const StoppedWorld stopped;
  PyThreadState* latest = nullptr;
  for (PyThreadState* other = PyInterpreterState_ThreadHead(current->interp); other != nullptr;
       other = PyThreadState_Next(other)) {
    if (other != current && other->thread_id == current->thread_id && other->id < before &&
        (latest == nullptr || latest->id < other->id) && runs_nothing(other)) {
      latest = other;
    }
  }
  return latest;
}

#else

bool interpreter_may_end_elsewhere(PyThreadState* current) noexcept {
  return current->interp != PyInterpreterState_Main();
}
PyThreadState* idle_thread_state(PyThreadState*, std::uint64_t) noexcept { return nullptr; }

#endif

}  // namespace greenlet::cpython
