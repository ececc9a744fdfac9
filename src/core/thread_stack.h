// A call on the OS thread's own stack, for code that compares the stack pointer with the bounds of
// that stack: the JVM, R, V8 and others. During such a call no switch can be made.
#pragma once

#include <Python.h>

#include <cstddef>

#include "core/thread.h"

namespace greenlet::core {

// Calls a function for the running greenlet on the OS thread's own stack, below what is there.
// prepare_to_switch() returns false until the function has returned. If the running greenlet is on
// that stack already, this is an ordinary call. The arguments are those of PyObject_Vectorcall().
PyObject* call_on_thread_stack(PyObject* function, PyObject* const* args, std::size_t count,
                               PyObject* names) noexcept;

// Call it before Thread::deliver(). It kills the greenlets of the thread that other threads have
// dropped. Returns false, with greenlet.error set, during call_on_thread_stack().
[[gnu::cold]] bool prepare_to_switch_slowly(Thread& thread) noexcept;
inline bool prepare_to_switch(Thread& thread) noexcept {
  // During such a call the queue is never empty.
  return thread.dropped().is_empty() || prepare_to_switch_slowly(thread);
}

}  // namespace greenlet::core
