// The world of one thread: its main greenlet, the one that runs, and the switch between them.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

#include "core/free_list.h"
#include "core/greenlet.h"
#include "core/message.h"
#include "core/module_state.h"
#include "core/ref.h"
#include "core/sweep.h"
#include "cpython/impl_fields.h"
#include "cpython/stack_bounds.h"
#include "cpython/stack_state.h"
#include "cpython/thread_states.h"
#include "stack/stack.h"

namespace greenlet::core {

// The vectorcall arguments of the call by which a Python frame leaves its stack; empty if it was
// another kind of call. See StackState::set_operands().
struct Operands {
  PyObject* const* begin = nullptr;
  PyObject* const* end = nullptr;
};

// Owns the main greenlet, the trace callback and the stack pool of one Python thread state; holds
// a reference to the greenlet that runs. Touched by its own thread only, except for the queue of
// dropped greenlets, and anchors_, which stay as they are. A capsule in the thread state's dict
// owns it, so that CPython ends it from inside the dying thread while that can still run Python
// (unless others hold that dict then).
//
// The memory of one that has ended is only ever used for another. An OS thread may have several
// thread states in turns (one per interpreter, or per PyGILState_Ensure()), a thread state may move
// between OS threads, and both may be ended elsewhere; so the Thread that an OS thread remembers
// may be of the past, and must still say truly whose it is now.
//
// No two share a cache line, nor a pair of lines, which processors fetch together.
class alignas(128) Thread {
 public:
  // The calling thread's world, made on first use. Null with an exception if there is no memory or
  // the interpreter is finalizing.
  static Thread* current() noexcept {
    PyThreadState* const tstate = cpython::current_thread_state();
    Thread* const thread = remembered_.thread;
    if (thread != nullptr && thread->is_of(tstate)) [[likely]] {
      return thread;
    }
    return attach();
  }
  // The same if it exists already; else null without an exception.
  static Thread* current_or_null() noexcept;

  // greenlet.getcurrent(): a new reference to the calling thread's running greenlet, after it has
  // ended those that other threads dropped. RuntimeError while the interpreter finalizes.
  static PyObject* getcurrent() noexcept;

  Greenlet& running() const noexcept { return *running_; }
  PyObject* empty_tuple() const noexcept { return module_->empty_tuple; }

  // Leaves the running greenlet for `to`, one that is suspended in this thread. `message` is an
  // owned value, or null after exception_ was set. Returns what the next switch back brings: a new
  // reference, or null with an exception set.
  [[gnu::always_inline]] PyObject* resume(Greenlet& to, PyObject* message,
                                          const Operands& operands) noexcept {
    running_->stack_state_.set_operands(operands.begin, operands.end);
    Py_INCREF(to.object());
    return arrive(switch_to(to, message));
  }
  // True if there is nothing to look after before a switch to `to` but the switch itself.
  bool can_resume(const Greenlet& to) const noexcept {
    return to.raw_state() == State::kSuspended &&
           to.thread_.load(std::memory_order_relaxed) == this &&
           pending_.load(std::memory_order_relaxed) == nullptr;
  }
  // True if it is suspended in this thread.
  bool can_enter(const Greenlet& to) const noexcept {
    return to.state() == State::kSuspended && to.thread() == this;
  }

  // Sends `message` to `target` or to whoever stands in for it (see API: unstarted and dead ones),
  // and returns what the running greenlet receives when it is switched to again.
  PyObject* deliver(Greenlet& target, Message message, const Operands& operands = {}) noexcept;

  // Why a suspended greenlet is ended that does not end by itself.
  //
  // GreenletExit is raised in it, once for each cause, and it does with that what it likes. An
  // event loop that catches everything would go on, and wait for events that never come, and its
  // thread with it. So what is raised is ModuleState::final_exit, which event loops let pass,
  // except where the published greenlet raises one as well: when the last reference has gone. And a
  // thread or an interpreter that ends leaves the schedulers among its greenlets where they are.
  enum class Cause : unsigned char { kDropped, kCollected, kThreadEnds };

  // Ends `greenlet`, which nobody can reach any more: at once if it belongs to the calling thread;
  // else hands it to its owner. If it goes on to wait, with nobody to refer to it, it is kept as it
  // is until its thread ends. Python code runs, and it may come back to life.
  static void end_unreachable(Greenlet& greenlet, Cause cause) noexcept;
  // Ends greenlets of this thread that other threads dropped.
  void finish_pending() noexcept {
    if (pending_.load(std::memory_order_relaxed) != nullptr) [[unlikely]] {
      finish_pending_slowly();
    }
  }
  // Call it before deliver(). It ends the greenlets that other threads dropped. Returns false, with
  // greenlet.error set, during call_on_thread_stack(); the queue is never empty during that.
  bool may_switch() noexcept {
    return pending_.load(std::memory_order_relaxed) == nullptr || may_switch_slowly();
  }
  // For a suspended greenlet that was dropped in another thread than its own, or collected there:
  // hands it to its owner, which takes a reference. False if the owner has ended or has it already:
  // then there is nothing to do.
  static bool hand_to_owner(Greenlet& greenlet, Cause cause) noexcept;
  // In a pass that recounts: does that for a greenlet of another thread that this collection has
  // finalized. Not earlier: its owner would unwind it while the collection finalizes, in this
  // thread, what it uses: the generators that it resumes, above all.
  static void hand_over_if_found(Greenlet& greenlet) noexcept;

  // The collector visits `greenlet`, and will visit the next of its list, one way or the other.
  // Their frames lie in pages of their own, several cache and TLB misses away. The processor can
  // have many of those under way at a time, if it meets the addresses before it needs the contents.
  void read_ahead_of(const Greenlet& greenlet) noexcept;

  // Gives back at once what suspended greenlets of the calling thread do not need, its pool, and
  // the reserve. Returns how many bytes of memory that were.
  static std::size_t trim() noexcept;

  // When the interpreter ends, and while everything works still, ends the greenlets of thread
  // states that it leaves behind in this OS thread. C code may keep several there; and since 3.14
  // Py_Finalize() ends the other interpreters from thread states of its own. Those left behind are
  // cleared later, when they cannot run any more. To be called where that may be; imports atexit.
  // Keeps the exception that is set.
  static void watch_exit(ModuleState& module) noexcept;

  // The trace callback, borrowed, or null.
  PyObject* tracer() const noexcept { return tracer_; }
  // Sets or (null) removes it; returns the old one.
  Ref exchange_tracer(Ref tracer) noexcept;

  // The stack of a greenlet that the calling OS thread runs on, whichever thread state it has, if
  // any; false if it runs on its own.
  static bool find_stack(cpython::StackBounds& found) noexcept;

  // Calls a function for the running greenlet on the OS thread's own stack, below what is there.
  // may_switch() returns false until the function has returned. If the running greenlet is on that
  // stack already, this is an ordinary call. The arguments are those of PyObject_Vectorcall().
  static PyObject* call_on_thread_stack(PyObject* function, PyObject* const* args,
                                        std::size_t count, PyObject* names) noexcept;

  // Sets greenlet.error for a switch to a greenlet that another thread, living or ended, owns.
  void refuse_foreign(const Greenlet& representative) noexcept;

 private:
  enum class Started : unsigned char { kYes, kNo, kMeanwhile };
  // What arrive() must look after beside the message; a set of bits.
  enum Attention : unsigned { kTraced = 1, kOriginFinished = 2 };

  Thread() = default;
  ~Thread() = default;

  void begin(PyThreadState* tstate, ModuleState* module, Greenlet& main) noexcept;
  bool is_of(PyThreadState* tstate) const noexcept {
    return key_.load(std::memory_order_relaxed) == tstate &&
           id_.load(std::memory_order_relaxed) == cpython::id_of(tstate);
  }

  static Thread* attach() noexcept;
  // current_or_null() where it is not the one that the OS thread has used last.
  [[gnu::noinline]] static Thread* known_or_null(PyThreadState* tstate) noexcept;
  // The calling thread's world, found in the thread state's dict and remembered. Null if there is
  // none; an exception is set if there is no memory to look. Call it without an exception set.
  static Thread* find() noexcept;
  // This OS thread remembers `thread`, the world of its present thread state.
  static void remember(Thread* thread) noexcept;
  // To be called before a switch that may be the OS thread's first.
  static void know_exceptions() noexcept {
    if (remembered_.exceptions == nullptr ||
        remembered_.exceptions == &context::g_no_exception_globals) [[unlikely]] {
      remembered_.exceptions = context::thread_exception_globals();
    }
  }
  static void end_from_capsule(PyObject* capsule) noexcept;
  // Makes the end of run() of the threading.Thread that this thread belongs to, if any, end the
  // greenlets: its threading.local data and threading.current_thread() are still there then.
  static void hook_end_of_run() noexcept;
  // Stands in for the method _delete() of that object, which threading calls last.
  static PyObject* at_end_of_run(PyObject* thread_and_method, PyObject*) noexcept;
  static PyObject* at_exit(PyObject*, PyObject*) noexcept;
  void end(bool in_own_thread) noexcept;
  void end_greenlets() noexcept;
  void end_those_not_spared() noexcept;
  void give_back_thread_state() noexcept;
  // True if `tstate`, the calling thread's, had a world that has ended with it.
  static bool has_ended(PyThreadState* tstate) noexcept;
  // Started greenlets that the end has not tried to kill often enough, as a list of new references;
  // empty if there are none, or no memory.
  Ref hold_those_to_end() noexcept;
  // end_unreachable() for a greenlet of this thread.
  void end_here(Greenlet& greenlet, Cause cause) noexcept;
  // Raises the exit of `cause` in a suspended greenlet of this thread, which leads back to the
  // running greenlet when it ends. One that was dropped has it as its parent for that time, as in
  // the published greenlet, and so has one whose parent is dead. The others keep their parent, by
  // which they may have to wait: gevent takes it for the hub. What else escapes is reported as
  // unraisable. Keeps the exception that is set. True if the greenlet has thrown the exit on.
  bool kill(Greenlet& greenlet, Cause cause) noexcept;
  // True for those that are left as they are, see Cause.
  bool is_spared(const Greenlet& greenlet) const noexcept;
  bool has_spared() const noexcept;
  void abandon_all(bool in_own_thread) noexcept;

  // The switch: puts the running greenlet's interpreter state away and `to`'s in place, and swaps
  // stacks. Consumes a reference to `to`, which the thread then holds as the running one's; leaves
  // the one to the greenlet that was left in origin_, for arrive() to drop.
  // `left` is what the greenlet that is left becomes: kSuspended, perhaps with a mark.
  [[gnu::always_inline]] PyObject* switch_to(Greenlet& to, PyObject* message,
                                             State left = State::kSuspended) noexcept {
    Greenlet& from = *running_;
    from.stack_state_.save(tstate_, anchors_);
    from.state_.store(left, std::memory_order_release);
    enter(from, to);
    return static_cast<PyObject*>(
        from.context_.switch_to(to.context_, remembered_.exceptions, message));
  }
  [[gnu::always_inline]] void enter(Greenlet& from, Greenlet& to) noexcept {
    to.stack_state_.restore(tstate_, anchors_);
    to.state_.store(State::kRunning, std::memory_order_release);
    running_ = &to;
    origin_ = &from;
  }
  // The other side of it: the running greenlet has just been entered with `message`.
  [[gnu::always_inline]] PyObject* arrive(PyObject* message) noexcept {
    if (message == nullptr || attention_ != 0 || running_->stack_state_.must_catch_up(tstate_))
        [[unlikely]] {
      return arrive_slowly(message);
    }
    Py_DECREF(origin_->object());
    return message;
  }
  PyObject* arrive_slowly(PyObject* message) noexcept;
  // What is left of it once the stack is as it was when it was left; also for a switch to oneself.
  PyObject* receive(PyObject* message) noexcept;
  // Calls the trace callback; false with an exception set, and tracing off, if it raised.
  bool trace(const char* event, Greenlet& origin) noexcept;

  // Who is to receive `message` for `target`: the running greenlet, or a suspended one of this
  // thread, started if need be. Null with an exception set if nobody can; `target` is then the one
  // at which the search failed.
  Greenlet* aim(Ref& target, Message& message) noexcept;
  Started start(Greenlet& greenlet, Message& message) noexcept;
  // A stack where the pool has none at once, or of a size that was asked for. Empty with a
  // MemoryError.
  stack::Region find_region(const Greenlet& greenlet) noexcept;
  // Both: aims, and turns the message into what resume() takes; leaves it empty.
  Greenlet* prepare(Ref& target, Message& message, PyObject*& payload) noexcept;
  // Turns a message into what resume() takes. False with an exception set if memory runs out.
  bool unpack(Message& message, PyObject*& payload) noexcept;
  // Takes back what unpack() has made of a message.
  Message unpacked(PyObject* payload) noexcept;

  static void run_greenlet(void* message) noexcept;  // the entry of every stack
  [[noreturn]] void finish(Greenlet& self, PyObject* result) noexcept;
  // For `self`, which ends and whose parent is `target`: puts the greenlet that is to receive
  // `message` into `target`, never `self`, and returns what switch_to() takes for it.
  PyObject* find_heir(Greenlet& self, Ref& target, Message message) noexcept;

  void finish_pending_slowly() noexcept;
  [[gnu::cold]] bool may_switch_slowly() noexcept;
  // call_on_thread_stack() from the running greenlet's own stack.
  PyObject* leave_region_for(void* (*function)(void*), void* argument) noexcept;
  // Undoes hand_to_owner() for one of this thread that is still in the queue.
  void take_back(Greenlet& greenlet) noexcept;
  // Something has happened that the sweep may take part in. It neither runs Python code nor
  // allocates.
  void note_event() noexcept { sweep_.note(started_, *main_, pool_); }
  void link(Greenlet& greenlet) noexcept;
  void unlink(Greenlet& greenlet) noexcept;

  struct Remembered {
    // The world that this OS thread used last, once `exceptions` are known; for the thread state it
    // has now only if is_of() says so.
    Thread* thread = nullptr;
    // Of this OS thread. Not known before it has a greenlet to switch to: to find them may load a
    // library.
    context::ExceptionGlobals* exceptions = nullptr;
    // As `thread`, until they are.
    Thread* idle = nullptr;
  };
  static constinit thread_local Remembered remembered_;

  // The world that is ending in this OS thread: its thread state has already lost the dict that
  // tells whose it is.
  static constinit thread_local Thread* ending_;

  // The thread state that is being cleared in this OS thread and whose world has ended: nothing
  // would end another. Ids of thread states are unique in one interpreter only, those of
  // interpreters only until Py_Finalize(); the serial of the module state is unique for good.
  struct Ended {
    std::uint64_t tstate_id = 0;
    std::int64_t interpreter_id = 0;
    std::uint64_t module_serial = 0;
  };
  static constinit thread_local Ended ended_;

  // Worlds that have ended.
  Thread* next_free_ = nullptr;
  static constinit FreeList<Thread, &Thread::next_free_> free_;

  // Whose it is: tstate_ while that lives, else no thread state's address; and its id, for the
  // world of one that has gone may be there still, if others hold the dict that the capsule is in,
  // and another thread state where that one was. No other field may be read by another OS thread.
  std::atomic<PyThreadState*> key_{reinterpret_cast<PyThreadState*>(this)};
  std::atomic<std::uint64_t> id_{0};

  // Hot.
  PyThreadState* tstate_ = nullptr;
  Greenlet* running_ = nullptr;
  Greenlet* origin_ = nullptr;  // who was left by the last switch
  unsigned attention_ = 0;
  bool is_ending_ = false;                   // its greenlets are being ended, or have been
  bool spares_none_ = false;                 // not even schedulers, see end_greenlets()
  bool calls_on_thread_stack_ = false;       // the running greenlet does, see thread_stack.cpp
  std::atomic<Greenlet*> pending_{nullptr};  // dropped by other threads; guarded by module_->owners
  cpython::ImplFields anchors_;
  PyObject* exception_ = nullptr;  // what a switch without a value brings; owned

  // Cold.
  ModuleState* module_ = nullptr;
  PyObject* module_object_ = nullptr;  // keeps module_ alive
  Greenlet* main_ = nullptr;
  PyObject* tracer_ = nullptr;
  Greenlet* started_ = nullptr;             // the list of greenlets that have a stack here
  const Greenlet* last_visited_ = nullptr;  // see read_ahead_of(); not to be followed
  int read_ahead_ = 0;                      // how many more to visit before the next batch
  Sweep sweep_;
  stack::Pool pool_;
};

}  // namespace greenlet::core
