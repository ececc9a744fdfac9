// The life of Threads: finding the one of the calling thread, making it at the first use, ending it
// when its capsule goes, and using the memory of ended ones again. It also finds the stack of a
// greenlet for the thread states that are made there.
#pragma once

#include <Python.h>

#include "core/free_list.h"
#include "core/os_thread.h"
#include "core/thread.h"
#include "cpython/stack_bounds.h"
#include "cpython/thread_states.h"

namespace greenlet::core {

// A Thread is found in two places: what the OS thread remembers (os_thread.h), and the capsule in
// the dict of the thread state, which owns the Thread. All functions are for the calling thread.
class ThreadRegistry {
 public:
  // The Thread, made at the first use. Null with an exception set if there is no memory, or if the
  // interpreter is finalizing or the thread is ending.
  static Thread* current() noexcept {
    PyThreadState* const tstate = cpython::current_thread_state();
    Thread* const thread = os_thread.thread;
    if (thread != nullptr && thread->is_of(tstate)) [[likely]] {
      return thread;
    }
    return attach();
  }
  // The Thread if it exists already; otherwise null without an exception. Also without a thread
  // state, and with an exception set, which stays.
  static Thread* current_or_null() noexcept;

  // The stack of a greenlet that the calling OS thread runs on, with any thread state.
  // False if it runs on its own stack. For cpython::watch_new_thread_states().
  static bool find_stack(cpython::StackBounds& found) noexcept;

  // Calls `look` for each Thread that has not ended. For a signal handler: it takes no lock, and
  // Threads may begin and end meanwhile.
  template <typename Look>
  static void for_each_living(Look look) noexcept {
    for (const Thread* thread = made_.load(std::memory_order_acquire); thread != nullptr;
         thread = thread->next_made_) {
      if (thread->listed_in_.load(std::memory_order_acquire) != nullptr) {
        look(*thread);
      }
    }
  }
  // Calls `look` for each Thread of the interpreter of `module`. The caller must have the GIL, or
  // have stopped the world.
  template <typename Look>
  static void for_each(const ModuleState& module, Look look) noexcept {
    for (Thread* thread = made_.load(std::memory_order_acquire); thread != nullptr;
         thread = thread->next_made_) {
      if (thread->is_in(module)) {
        look(*thread);
      }
    }
  }
  // The same for each that is_living(). Takes as long as there are Threads and thread states.
  template <typename Look>
  static void for_each_in_use(const ModuleState& module, Look look) noexcept {
    find_those_in_use(module);
    for_each(module, [&](Thread& thread) {
      if (thread.is_in_use_) {
        look(thread);
      }
    });
  }

 private:
  friend struct DebugLayout;  // debug_layout.cpp

  // The slow half of current(): finds the Thread, or makes it and hooks the ends of the thread and
  // of the interpreter (thread_end.h).
  static Thread* attach() noexcept;
  // A Thread that no capsule owns yet, for begin(). Null with MemoryError.
  static Thread* allocate() noexcept;
  // The slow half of current_or_null(): os_thread.thread is not the Thread of `tstate`.
  [[gnu::noinline]] static Thread* find_slowly(PyThreadState* tstate) noexcept;
  // Finds the Thread in the thread state's dict, and remembers it. Null if there is none; an
  // exception is set if there is no memory to look. Call it without an exception set.
  static Thread* find_in_dict() noexcept;
  // Puts `thread`, the one of the present thread state, into os_thread. Corrects the bounds of the
  // C stack in the thread state if the main greenlet runs.
  static void remember(Thread& thread) noexcept;
  // True if `tstate`, the calling thread's, had a Thread that has ended. See OsThread::Ended.
  static bool has_ended(PyThreadState* tstate) noexcept;

  // Sets is_in_use_ of each Thread.
  static void find_those_in_use(const ModuleState& module) noexcept;

  // The destructor of the capsule: calls end().
  static void end_from_capsule(PyObject* capsule) noexcept;
  // Ends `thread`: its greenlets first (thread_end.h), then the rest.
  static void end(Thread& thread, bool in_own_thread) noexcept;

  // The memory of Threads that have ended. Of the whole process; takes no lock.
  static constinit FreeList<Thread, &Thread::next_unused_> unused_;
  // All Threads that the process has made, also those that have ended: the last one, and from each
  // the one that was made before it. None is ever removed.
  static constinit std::atomic<Thread*> made_;
};

}  // namespace greenlet::core
