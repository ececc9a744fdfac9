// Faults: memory that the program may not touch (SIGSEGV, SIGBUS). For reporting an overflow; off
// until watch_faults() is called. The contract; fault_posix.cpp implements it. A port may do
// nothing: watch_faults() returns false.
#pragma once

namespace greenlet::platform {

// Called in the thread that has touched `address`, inside a signal handler: it may do only what is
// safe there, and takes no lock that the thread may hold. True if it knows what the fault is.
using FaultHook = bool (*)(const void* address) noexcept;

// From now on the hook is called at every fault, before the handler that the program had until now
// (its own, faulthandler's, a JVM's, or the default, which ends the process). That handler is then
// called in any case, as if there were no hook. Once the hook has returned true, the previous
// handler is installed again: the hook is not called for that signal any more, until the next
// watch_faults(). A handler that is installed later comes first, and it decides whether ours is
// called. False if this system cannot do so. Not for two threads at once.
bool watch_faults(FaultHook hook) noexcept;
void stop_watching_faults() noexcept;

// A thread whose stack is full can run a handler only on another stack. Gives the calling thread
// such a stack, unless it has one. About eight system calls the first time in a thread, later none;
// one each time in a thread that has a stack of other code.
void ensure_signal_stack() noexcept;
// Takes back what ensure_signal_stack() has given the calling thread. For the end of the thread.
void release_signal_stack() noexcept;

}  // namespace greenlet::platform
