// The end of a thread that uses greenlets, and the hooks by which it comes early enough to run
// Python code. The words are explained in greenlet.h.
//
// A thread that ends kills its suspended greenlets, the oldest first, and spares schedulers. Then
// it abandons what is left. Three events make it kill; a later one finds fewer greenlets to kill:
//
//   threading's _delete()   after run() of a threading.Thread: threading.local data and
//                           threading.current_thread() are still there (hook_end_of_run())
//   atexit                  before Py_Finalize(): for thread states that it leaves behind; before
//                           Py_EndInterpreter() (hook_exit())
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

// Hooks the end of run() of the calling thread's threading.Thread, if there is one: the hook kills
// the greenlets of the thread. Keeps the exception that is set.
void hook_end_of_run() noexcept;

// Hooks the end of the interpreter by an atexit function: the hook kills the greenlets of the other
// thread states of the OS thread, while everything still works. CPython clears these thread states
// later, when they cannot run Python code any more. There are such thread states if C code keeps
// several in an OS thread, and for other interpreters since 3.14: Py_Finalize() ends these from
// thread states of its own. In an interpreter that is not the main one, the hook kills the calling
// thread's greenlets, too. Call it where that may happen; only the first call for `module` does
// something. Imports atexit. Keeps the exception that is set.
void hook_exit(ModuleState& module) noexcept;

}  // namespace greenlet::core
