// Killing suspended greenlets: the cause, the exception, and who is spared. Greenlets that other
// threads have dropped are killed here, too, by their own thread. The words are explained in
// greenlet.h.
#pragma once

#include "core/greenlet.h"
#include "core/thread.h"

namespace greenlet::core {

// Why a suspended greenlet is killed.
//
// Each kill() raises a GreenletExit in it once, and the greenlet may catch that. If it goes on, a
// later cause kills it again. The end of its thread kills it up to kMostKills times
// (thread_end.cpp), and spares schedulers.
//
// An event loop that catches every exception would go on and wait for events that never come, and
// its thread would wait with it. Event loops let SystemExit pass. So the exception is
// ModuleState::final_exit, a subclass of GreenletExit and SystemExit. For kDropped it is a plain
// GreenletExit, as in the published greenlet.
enum class KillCause : unsigned char {
  kDropped,     // its last reference has been dropped
  kCollected,   // a collection has found it to be garbage
  kThreadEnds,  // its thread is ending
};

// Kills `greenlet`, which nothing can reach any more: at once if it belongs to the calling thread;
// otherwise its owner will kill it. If it does not finish, it is kept. Does nothing if the greenlet
// is not suspended. Runs Python code, which may bring the greenlet back to life.
void kill_unreachable(Greenlet& greenlet, KillCause cause) noexcept;

// Raises the exit of `cause` in `greenlet`, which is suspended in `thread`, the calling one, and
// returns when the greenlet has finished or switched back. Errors are reported as unraisable. Keeps
// the exception that is set. True if the greenlet has thrown the exit into the running one and is
// still suspended.
bool kill(Thread& thread, Greenlet& greenlet, KillCause cause) noexcept;

// True if `greenlet` is a scheduler that must not be killed now.
bool is_spared(const Thread& thread, const Greenlet& greenlet) noexcept;

// Kills the greenlets of `thread`, the calling one, that other threads have dropped. Keeps the
// exception that is set.
void kill_dropped_slowly(Thread& thread) noexcept;
inline void kill_dropped(Thread& thread) noexcept {
  if (!thread.dropped().is_empty()) [[unlikely]] {
    kill_dropped_slowly(thread);
  }
}

}  // namespace greenlet::core
