// Thread states as wholes: the calling thread's, others of the same OS thread, and how far the
// finalization of their interpreter has come.
#pragma once

#include <Python.h>

#include <cstdint>

namespace greenlet::cpython {

// The calling thread's state, or null. A few instructions; sets no exception.
inline PyThreadState* current_thread_state() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

// Unique among all thread states that an interpreter has or had (PyThreadState_GetID()).
inline std::uint64_t id_of(const PyThreadState* tstate) noexcept { return tstate->id; }

// False once the interpreter is so far into its finalization that running Python code is unwise.
bool can_run_python(PyThreadState* tstate) noexcept;

// True if `tstate` is a thread state of the calling thread's interpreter whose id is `id`. It may
// have ended: the pointer is only compared. For a caller that has the GIL, or has stopped the
// world. Takes time in proportion to the number of thread states.
bool is_living(const PyThreadState* tstate, std::uint64_t id) noexcept;
// Calls `look` for each thread state of the calling thread's interpreter, for such a caller. Takes
// no lock, as PyThreadState_Next() does for each step: a thread without the GIL may put its new
// thread state ahead of the others, but only threads with it take one out.
template <typename Look>
void for_each_thread_state(Look look) noexcept {
  PyInterpreterState* const interpreter = current_thread_state()->interp;
  for (PyThreadState* each = PyInterpreterState_ThreadHead(interpreter); each != nullptr;
       each = each->next) {
    look(each);
  }
}

// Another thread state of the interpreter and the OS thread of `current` that runs nothing at the
// moment. Only those with an id smaller than `before` count; of several, it returns the one with
// the largest id. Null if there is none. Always null before 3.12: there PyGILState_Ensure() would
// not notice that the OS thread has changed to it.
PyThreadState* idle_thread_state(PyThreadState* current, std::uint64_t before) noexcept;
// True if the interpreter of `current` may be ended while another thread state of this OS thread is
// attached, and not `current`: there is another one already, or the interpreter is not the main
// one. Before 3.12 only the second counts.
bool interpreter_may_end_elsewhere(PyThreadState* current) noexcept;

// True once Py_Finalize() has run the atexit functions (sys.is_finalizing()).
inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

}  // namespace greenlet::cpython
