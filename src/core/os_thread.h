// What an OS thread remembers of the Threads that it has used. So the usual call finds its Thread
// without a look into the thread state's dict.
#pragma once

#include <cstdint>

#include "context/context.h"

namespace greenlet::core {

class Thread;

// Thread-local, so it needs no lock. ThreadRegistry keeps it; the switch reads `thread` and
// `exceptions`.
struct OsThread {
  // The Thread that this OS thread has used last. It belongs to the present thread state only if
  // Thread::is_of() says so: an OS thread may have several thread states in turns. Null as long as
  // `exceptions` is null, so that no switch takes the fast path before that.
  Thread* thread = nullptr;
  // The C++ runtime's exception state of this OS thread. Null before the OS thread has a greenlet
  // to switch to, because finding the state may load a library.
  context::ExceptionGlobals* exceptions = nullptr;
  // In place of `thread` as long as `exceptions` is null: the Thread that was used last.
  Thread* thread_without_exceptions = nullptr;

  // The Thread that is ending in this OS thread, or null. Its thread state has no dict any more.
  Thread* ending = nullptr;

  // The last thread state whose Thread has ended in this OS thread. If CPython is still clearing
  // that thread state, it must not get another Thread: nothing would end that.
  struct Ended {
    std::uint64_t tstate_id = 0;      // unique in one interpreter only
    std::int64_t interpreter_id = 0;  // unique until Py_Finalize() only
    std::uint64_t module_serial = 0;  // unique for good
  };
  Ended ended;

  // Call it before a switch that may be the first of the OS thread.
  void find_exceptions() noexcept {
    if (exceptions == nullptr || exceptions == &context::g_no_exception_globals) [[unlikely]] {
      exceptions = context::thread_exception_globals();
    }
  }
};

extern constinit thread_local OsThread os_thread;

}  // namespace greenlet::core
