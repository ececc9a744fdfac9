// The end of a thread that uses greenlets, and the hooks by which it comes early enough to run
// Python code. The words are explained in greenlet.h.
//
// A thread that ends kills its suspended greenlets, the oldest first, and spares schedulers. Then
// it abandons what is left. Three events make it kill; a later one finds fewer greenlets to kill:
//
//   threading's _delete()   after run() of a threading.Thread: threading.local data and
//                           threading.current_thread() are still there (kill_at_end_of_run())
//   atexit                  before Py_Finalize(): for thread states that it leaves behind
//                           (kill_at_exit())
//   the capsule             when CPython clears the thread state: ThreadRegistry::end() calls
//                           end_greenlets(). Only this one abandons.
#pragma once

#include "core/module_state.h"
#include "core/thread.h"

namespace greenlet::core {

// The last of the three: kills the greenlets of `thread` if it still can, and abandons the rest.
// `in_own_thread` is false where another thread clears the thread state: after a fork, and at the
// end of the interpreter.
void end_greenlets(Thread& thread, bool in_own_thread) noexcept;

// Makes the end of run() of the calling thread's threading.Thread, if there is one, kill the
// thread's greenlets. Keeps the exception that is set.
void kill_at_end_of_run() noexcept;

// Makes the end of the interpreter kill, while everything still works, the greenlets of thread
// states that it leaves behind in this OS thread. C code may keep several thread states there, and
// since 3.14 Py_Finalize() ends the other interpreters from thread states of its own. CPython
// clears those left behind later, when they cannot run any more. To be called where that may
// happen; imports atexit. Keeps the exception that is set.
void kill_at_exit(ModuleState& module) noexcept;

}  // namespace greenlet::core
