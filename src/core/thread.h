// The state of one Python thread that uses greenlets: its data, and the switch.
//
// Other jobs have files of their own: finding and making a Thread (thread_registry.h), tracing
// (tracing.h), killing greenlets (killing.h), the end of a thread (thread_end.h), calls on the
// thread's own stack (thread_stack.h).
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

#include "core/dropped_queue.h"
#include "core/greenlet.h"
#include "core/greenlet_list.h"
#include "core/message.h"
#include "core/module_state.h"
#include "core/os_thread.h"
#include "core/read_ahead.h"
#include "core/ref.h"
#include "core/sweep.h"
#include "core/tracing.h"
#include "cpython/impl_fields.h"
#include "cpython/stack_state.h"
#include "cpython/thread_states.h"
#include "stack/stack.h"

namespace greenlet::core {

// The vectorcall arguments of the call by which a Python frame leaves its stack. Empty if it was
// another kind of call.
using cpython::Operands;

struct RecordedThread;

// Belongs to one Python thread state. Owns the main greenlet, the trace callback and the stack
// pool, and a reference to the running greenlet. A capsule in the thread state's dict owns the
// Thread. So CPython ends it from inside the dying thread, while that thread can still run Python
// code (unless others hold the dict then).
//
// Its own thread alone touches it, with these exceptions:
//   owner_tstate_, owner_id_   atomic; see is_of()
//   dropped_                   ModuleState::owners; see DroppedQueue
//   main_                      another thread reads it under ModuleState::owners
//   read_ahead_, started_      a collection in another thread, under the GIL or in a stopped world
//   tstate_, main_, running_   listing.h, in the same way
//   attention_                 tracing.h, in the same way
//   recorded_                  timeline.h, in the same way
//   watched_since_, next_in_bucket_, is_in_use_
//                              listing.h, in the same way
//
// The memory of a Thread is never freed, only used for another Thread. The reason: an OS thread may
// have several thread states in turns (one per interpreter, or per PyGILState_Ensure()), a thread
// state may move between OS threads, and either may end in another OS thread. So the Thread that an
// OS thread remembers may have ended, and is_of() must still give the right answer.
//
// No two Threads share a cache line, nor a pair of lines, which processors fetch together.
class alignas(128) Thread {
 public:
  // True if `tstate` is the thread state that this belongs to. Any thread may ask.
  bool is_of(PyThreadState* tstate) const noexcept {
    return owner_tstate_.load(std::memory_order_relaxed) == tstate &&
           owner_id_.load(std::memory_order_relaxed) == cpython::id_of(tstate);
  }

  // For a signal handler in any thread: null, or out of date, if the Thread is just ending.
  const Greenlet* peek_running() const noexcept {
    return __atomic_load_n(&running_, __ATOMIC_RELAXED);
  }
  const Greenlet* peek_main() const noexcept { return __atomic_load_n(&main_, __ATOMIC_RELAXED); }
  const PyThreadState* peek_tstate() const noexcept {
    return __atomic_load_n(&tstate_, __ATOMIC_RELAXED);
  }
  // Whether the thread state lives on. `copy` is a copy of it. An ended one has no dict.
  bool peek_is_living(const PyThreadState& copy) const noexcept {
    return copy.id == owner_id_.load(std::memory_order_relaxed) && copy.dict != nullptr;
  }

  Greenlet& running() const noexcept { return *running_; }
  Greenlet& main() const noexcept { return *main_; }
  bool runs_main() const noexcept { return running_ == main_; }
  ModuleState& module() const noexcept { return *module_; }
  PyObject* empty_tuple() const noexcept { return module_->empty_tuple; }
  PyThreadState* tstate() const noexcept { return tstate_; }
  // True if this belongs to a living thread state of the interpreter of `module`. Any thread may
  // ask. It stays so while the caller has the GIL, or has stopped the world.
  bool is_in(const ModuleState& module) const noexcept {
    return listed_in_.load(std::memory_order_acquire) == &module;
  }
  // False if the thread state has ended, or if the end of this Thread has abandoned its greenlets.
  // (A Thread may outlive its thread state: see owner_tstate_.) Any thread of the interpreter may
  // ask that has the GIL, or has stopped the world. It stays so as long. To ask for all Threads,
  // see ThreadRegistry::for_each_in_use().
  bool is_living() const noexcept {
    return main_->thread() == this &&
           cpython::is_living(tstate_, owner_id_.load(std::memory_order_relaxed));
  }
  const cpython::ImplFields& impl_fields() const noexcept { return impl_fields_; }
  // The greenlets that have a stack here.
  const GreenletList& started() const noexcept { return started_; }
  // Greenlets of this thread that other threads have dropped. While it is not empty, no switch
  // takes the fast path: see can_resume().
  DroppedQueue& dropped() noexcept { return dropped_; }
  ReadAhead& read_ahead() noexcept { return read_ahead_; }

  // --- the switch (switching.cpp) ---

  // Leaves the running greenlet for `to`. Only if can_resume(to) or can_enter(to). `message` is an
  // owned value, or null after exception_ was set. Returns what the next switch back brings: a new
  // reference, or null with an exception set.
  [[gnu::always_inline]] PyObject* resume(Greenlet& to, PyObject* message,
                                          const Operands& operands) noexcept {
    running_->stack_state_.set_operands(operands);
    Py_INCREF(to.object());
    return arrive(switch_to(to, message));
  }
  // True if a switch to `to` needs nothing but resume(): `to` is suspended in this thread without a
  // mark, and no dropped greenlet waits to be killed.
  bool can_resume(const Greenlet& to) const noexcept {
    return to.raw_state() == State::kSuspended &&
           to.thread_.load(std::memory_order_relaxed) == this && dropped_.is_empty();
  }
  // True if `to` is suspended in this thread, and its stack is in place.
  bool can_enter(const Greenlet& to) const noexcept {
    return to.is_in_place() && to.thread() == this;
  }

  // Sends `message` to `target`, after prepare_to_switch(). A target that has not started is
  // started; a dead one hands the message on to its parent. Returns what the running greenlet
  // receives when it is switched to again.
  PyObject* deliver(Greenlet& target, Message message, const Operands& operands = {}) noexcept;

  // --- tracing ---

  const Tracer& tracer() const noexcept { return tracer_; }
  // Sets or (empty) removes the trace callback; returns the old one.
  Ref exchange_tracer(Ref callback) noexcept {
    set_attention(kTraced, static_cast<bool>(callback));
    return tracer_.exchange(std::move(callback));
  }

  // What arrive() must do beside bringing the message; a set of bits.
  enum Attention : unsigned {
    kTraced = 1,          // tracer() has a callback
    kOriginFinished = 2,  // the greenlet that was left has finished
    kTracedInAll = 4,     // ModuleState::tracer is set, and has not raised here
    kHooked = 8,          // ModuleState::hook is set
    kWatched = 16,        // no switch since watched_since()
    kFreezes = 32,        // the greenlet that was left is to be frozen: Freezer::test_mode()
  };
  // Of another thread, only while the world is stopped.
  void set_attention(Attention bit, bool value) noexcept {
    attention_ = value ? attention_ | bit : attention_ & ~unsigned{bit};
  }
  bool has_attention(Attention bit) const noexcept { return (attention_ & bit) != 0; }

  // True if note_origin() is to be called for each new greenlet. Set it of another thread only
  // while the world is stopped.
  bool notes_origin() const noexcept { return notes_origin_; }
  void set_notes_origin(bool value) noexcept { notes_origin_ = value; }
  // Since when there was no switch, on the clock kMonotonic, if kWatched is set: the first look.
  std::uint64_t watched_since() const noexcept { return watched_since_; }
  void set_watched_since(std::uint64_t time) noexcept { watched_since_ = time; }

  // --- what the other jobs record here ---

  // How far the end of the thread has come, and so which greenlets it kills; see thread_end.h.
  enum class End : unsigned char { kNotYet, kSparesSchedulers, kSparesNone };
  End end_phase() const noexcept { return end_phase_; }
  void set_end_phase(End phase) noexcept { end_phase_ = phase; }

  // True while the running greenlet is in call_on_thread_stack().
  bool is_on_thread_stack() const noexcept { return is_on_thread_stack_; }
  void set_on_thread_stack(bool value) noexcept { is_on_thread_stack_ = value; }

  // What a recording keeps of this thread (timeline.h); null if there is none. Of another thread,
  // only while the world is stopped.
  RecordedThread* recorded() const noexcept { return recorded_; }
  void set_recorded(RecordedThread* recorded) noexcept { recorded_ = recorded; }

  // Something has happened, so the sweep may do some work. Neither runs Python code nor allocates.
  void note_event() noexcept { sweep_.note(started_, *main_, pool_); }
  // Gives back at once what suspended greenlets and the pool do not need.
  void trim(stack::Trimmer& trimmer) noexcept {
    Sweep::trim_all(started_, trimmer);
    pool_.trim(trimmer);
  }

  // Freezes at once what may be frozen; returns how many greenlets.
  std::size_t freeze() noexcept { return Sweep::freeze_all(started_); }

  // The thread state ends while another greenlet than the main one runs, as when Py_Finalize() is
  // called there. Gives the thread state the main greenlet's share again: CPython frees the thread
  // state's data stack, which must not be the one in our region, and may clear other fields.
  void give_back_thread_state() noexcept;

 private:
  friend struct DebugLayout;    // debug_layout.cpp
  friend class ThreadRegistry;  // makes Threads, and puts the memory of ended ones aside

  // kAlreadyStarted: other code has started the greenlet during the preparations of start().
  enum class Start : unsigned char { kStarted, kFailed, kAlreadyStarted };

  Thread() = default;
  ~Thread() = default;

  // Makes this the Thread of `tstate`, whose running greenlet is `main`.
  void begin(PyThreadState* tstate, ModuleState* module, Greenlet& main) noexcept;
  // The references that a Thread owns. They are dropped when everything else is done, because that
  // may run Python code.
  struct Owned {
    Ref tracer, module, main, running;
  };
  // Makes this the Thread of no thread state, ready for the next begin().
  Owned reset() noexcept;

  // --- the switch ---

  // Saves the running greenlet's StackState, restores the one of `to`, and swaps the stacks.
  // Takes over a reference to `to`, which the thread then owns as the one to the running greenlet.
  // Leaves the reference to the old running greenlet in origin_; arrive() drops it. `left` is the
  // new state of the greenlet that is left: kSuspended, perhaps with a mark.
  [[gnu::always_inline]] PyObject* switch_to(Greenlet& to, PyObject* message,
                                             State left = State::kSuspended) noexcept {
    Greenlet& from = *running_;
    from.stack_state_.save(tstate_, impl_fields_);
    from.state_.store(left, std::memory_order_release);
    enter(from, to);
    return static_cast<PyObject*>(
        from.context_.switch_to(to.context_, os_thread.exceptions, message));
  }
  [[gnu::always_inline]] void enter(Greenlet& from, Greenlet& to) noexcept {
    to.stack_state_.restore(tstate_, impl_fields_);
    to.state_.store(State::kRunning, std::memory_order_release);
    running_ = &to;
    origin_ = &from;
  }
  // The other side of a switch: the running greenlet has just been entered with `message`.
  [[gnu::always_inline]] PyObject* arrive(PyObject* message) noexcept {
    if (message == nullptr || attention_ != 0 || running_->stack_state_.must_catch_up(tstate_))
        [[unlikely]] {
      return arrive_slowly(message);
    }
    Py_DECREF(origin_->object());
    return message;
  }
  PyObject* arrive_slowly(PyObject* message) noexcept;
  // Freezes the origin, if that is wanted. Calls the hook and the tracer. Returns false with an
  // exception set if the tracer raises.
  [[gnu::noinline]] bool tell_of_switch(Greenlet& origin, bool is_throw) noexcept;
  // The rest of arrive_slowly(), when the StackState has caught up; also for a switch from a
  // greenlet to itself.
  PyObject* receive(PyObject* message) noexcept;

  // Finds the greenlet that receives a `message` which is sent to `target`, and puts it into
  // `target`. It is the running greenlet, or a suspended one of this thread. If it has not started,
  // this starts it. Null with an exception set if there is none; the search failed at `target`
  // then.
  Greenlet* find_receiver(Ref& target, Message& message) noexcept;
  // For a suspended greenlet with a mark that is about to go on. Brings its stack back if it is
  // frozen: false with a MemoryError set if the system refuses that.
  [[gnu::cold, gnu::noinline]] bool wake(Greenlet& greenlet) noexcept;
  // Frees what a finished greenlet has kept for its run.
  [[gnu::cold, gnu::noinline]] static void let_go_of_remaining(Greenlet& finished) noexcept;
  // Finds the receiver by find_receiver(), and turns `message` into `payload`, the argument of
  // resume(). The message is empty then.
  Greenlet* prepare(Ref& target, Message& message, PyObject*& payload) noexcept;
  // Turns a message into the argument of resume(). False with MemoryError set if memory runs out.
  bool to_payload(Message& message, PyObject*& payload) noexcept;
  // Turns the argument of resume() into a message again.
  Message from_payload(PyObject* payload) noexcept;
  // Sets greenlet.error for a switch to a greenlet that belongs to another thread, or to a thread
  // that has ended. `unstarted`: the target, if it has not started, and `representative` is the
  // ancestor whose thread it would start in.
  void raise_wrong_thread(const Greenlet& representative, PyObject* unstarted = nullptr) noexcept;

  // --- start and finish of a greenlet's run (start_finish.cpp) ---

  // Gives `greenlet` a stack and makes it suspended, with the message as the arguments of its run.
  Start start(Greenlet& greenlet, Message& message) noexcept;
  // A region when the pool has none at once, or of a size that was asked for. Empty with a
  // MemoryError set.
  stack::Region find_region(const Greenlet& greenlet) noexcept;
  static void run_greenlet(void* message) noexcept;  // the entry of every stack
  // The run of `self` has returned `result`, or has raised if `result` is null. Makes `self` dead
  // and leaves its stack for its heir.
  [[noreturn]] void finish(Greenlet& self, PyObject* result) noexcept;
  // Finds the greenlet that receives `message` from `self`, which finishes. The search begins with
  // `target`, the heir (empty: the main greenlet). Puts the receiver into `target`; it is never
  // `self`. Returns the argument of switch_to().
  PyObject* find_heir(Greenlet& self, Ref& target, Message message) noexcept;

  Thread* next_unused_ = nullptr;                       // in ThreadRegistry's list of ended Threads
  Thread* next_made_ = nullptr;                         // in its list of all Threads; never changes
  std::atomic<const ModuleState*> listed_in_{nullptr};  // module_, for other threads

  // The thread state, as long as it lives and this is its Thread; otherwise `this`, which is the
  // address of no thread state. The id belongs to it: a Thread may outlive its thread state, if
  // others hold the dict with the capsule, and CPython may make another thread state at the same
  // address. Other OS threads may read only these two fields without a lock.
  std::atomic<PyThreadState*> owner_tstate_{reinterpret_cast<PyThreadState*>(this)};
  std::atomic<std::uint64_t> owner_id_{0};

  // What a switch reads and writes.
  PyThreadState* tstate_ = nullptr;
  Greenlet* running_ = nullptr;
  Greenlet* origin_ = nullptr;  // the greenlet that the last switch has left
  unsigned attention_ = 0;
  End end_phase_ = End::kNotYet;
  bool is_on_thread_stack_ = false;
  bool notes_origin_ = false;
  DroppedQueue dropped_;
  cpython::ImplFields impl_fields_;
  PyObject* exception_ = nullptr;  // what a switch without a value brings; owned

  // What a switch does not need.
  ModuleState* module_ = nullptr;
  PyObject* module_object_ = nullptr;  // keeps module_ alive
  Greenlet* main_ = nullptr;
  Tracer tracer_;
  GreenletList started_;
  ReadAhead read_ahead_;
  Sweep sweep_;
  RecordedThread* recorded_ = nullptr;
  std::uint64_t watched_since_ = 0;
  Thread* next_in_bucket_ = nullptr;  // of ThreadRegistry::for_each_in_use()
  bool is_in_use_ = false;
  stack::Pool pool_;
};

}  // namespace greenlet::core
