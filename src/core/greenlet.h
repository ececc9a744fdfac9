// One greenlet: the object that Python sees and the control block behind it. Also the words of this
// project for every way in which something ends.
#pragma once

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "context/context.h"
#include "core/module_state.h"
#include "core/ref.h"
#include "cpython/locks.h"
#include "cpython/stack_state.h"
#include "stack/stack.h"

namespace greenlet::core {

class Greenlet;
class GreenletList;
class DroppedQueue;
class Freezer;
class Sweep;
class Thread;
struct FrozenStack;

// The Python object. Its layout is ABI: compiled subclasses append their fields directly behind it
// (the PyGreenlet of greenlet.h).
struct Object {
  PyObject ob_base;
  PyObject* weakreflist;
  PyObject* dict;
  Greenlet* greenlet;
};

// What a greenlet can be. Transitions:
//
//   kNew -------> kSuspended    Thread::start() has given it a stack; a switch to it follows
//   kSuspended -> kRunning      a switch to it
//   kRunning ---> kSuspended    a switch away from it
//   kRunning ---> kDead         its run has finished
//   kSuspended, kRunning -> kAbandoned    its thread has ended
//
// kRunning is the one greenlet that its thread runs at this moment. A main greenlet begins as
// kRunning and becomes kAbandoned with its thread. The owner thread writes the state (of a new
// greenlet, the thread that starts it); any thread reads it.
//
// The stored value may be greater than kSuspended. The greenlet is then suspended as well, and the
// difference is a mark of the Sweep, or says that the greenlet is frozen (freezing.h). Every switch
// stores the bare state, which removes the mark. A frozen greenlet is thawed before.
enum class State : std::uint8_t { kNew, kRunning, kDead, kAbandoned, kSuspended };

// The words for endings. Each has one meaning when it is said of greenlets and threads, in names
// and in comments. (Other types use some of them for themselves: Ref::release(),
// HeldReferences::release(), platform::drop(), Trimmer::drop_all().)
//
//   finish      A greenlet's run has returned or raised. The greenlet is kDead; its heir goes on.
//   kill        GreenletExit is raised in a suspended greenlet, so that it finishes (killing.h).
//   spare       A scheduler is not killed when its thread or its interpreter ends.
//   keep        A killed greenlet did not finish. Its thread owns a reference to it until it does.
//   hand over   A thread has dropped or collected a suspended greenlet of another thread. It puts
//               the greenlet into that thread's DroppedQueue, and the owner kills it.
//   end         Of a thread, a Thread or an interpreter: it kills its greenlets, spares schedulers,
//               and abandons those that are left (thread_end.h).
//   abandon     A greenlet's thread has ended before its run finished. The greenlet is kAbandoned:
//               it never runs again, and its stack stays as it is for good.
//   retire      A Context never runs again; the sanitizers are told.
//   release     A stack region goes back to its pool.
//   drop        A reference is given up (Py_DECREF).
//   finalize    CPython calls tp_finalize: for the last reference, or from a collection.
//   deallocate  CPython calls tp_dealloc, and the memory is freed.

// The control block: everything of a greenlet that is not on its stack. Owned by its Object, which
// has exactly one.
//
// Locks. After the start the owner thread alone writes the fields, with these exceptions:
//   run_, notes_, the start itself the object's own lock (cpython::ObjectLock)
//   parent_                        written under the object's own lock and ModuleState::parents, so
//                                  either is enough to read it; clear() and destroy() write it when
//                                  no other thread can reach the greenlet by its object
//   is_queued_, next_queued_, queued_by_collector_
//                                  ModuleState::owners
//   state_, is_scheduler_, is_finishing_, wanted_stack_units_
//                                  atomic: any thread reads them without a lock
//   thread_                        atomic; the end of a thread makes it null under
//                                  ModuleState::owners. See thread().
// Other threads use the other fields only while the greenlet is suspended and its owner cannot run:
// in a stopped world (cpython::StoppedWorld), or under the GIL. gr_context does so (inspection.h),
// and the collector.
class Greenlet {
 public:
  // A new object of `type` and its control block. Its parent is the object `parent` (null for a
  // main greenlet). Empty with an exception set if there is no memory.
  static Ref create(PyTypeObject* type, ModuleState* module, PyObject* parent) noexcept;
  // The object is being deallocated: frees the control block and drops what it still owns. Never
  // call it for a suspended greenlet.
  void destroy() noexcept;

  static Greenlet& of(PyObject* object) noexcept {
    // cppcheck-suppress nullPointer  ; finish() has checked that its heir is one
    return *reinterpret_cast<Object*>(object)->greenlet;
  }
  PyObject* object() const noexcept { return reinterpret_cast<PyObject*>(object_); }
  ModuleState& module() const noexcept { return *module_; }

  State state() const noexcept {
    return std::min(state_.load(std::memory_order_acquire), State::kSuspended);
  }
  bool is_started() const noexcept { return state() != State::kNew; }
  bool is_dead() const noexcept {
    const State now = state();
    return now == State::kDead || now == State::kAbandoned;
  }
  bool is_active() const noexcept {
    const State now = state();
    return now == State::kRunning || now == State::kSuspended;
  }
  bool is_main() const noexcept { return is_main_; }
  // True while it looks for its heir. For Python code, which the lookup of a parent's `run` may
  // call, it is dead by then, as in the published greenlet.
  bool is_finishing() const noexcept { return is_finishing_.load(std::memory_order_relaxed); }
  bool appears_dead() const noexcept { return is_dead() || is_finishing(); }
  bool appears_active() const noexcept { return is_active() && !is_finishing(); }

  // The owner: the Thread it was started in. Null before the start, and after it has finished or
  // its thread has ended. Any thread may compare the pointer. To follow the pointer, another thread
  // must hold module().owners.
  Thread* thread() const noexcept { return thread_.load(std::memory_order_acquire); }

  // The callable to run, a new reference; empty if none is set or the greenlet has started.
  Ref run() const noexcept;
  // The same, or what it runs if it has started; borrowed, null if there is none. For a look while
  // the owner cannot run.
  PyObject* run_as_is() const noexcept { return run_; }
  // False if the greenlet has started.
  bool set_run(Ref run) noexcept;

  // A new reference, empty for main greenlets.
  Ref parent() const noexcept;
  bool is_child_of(const Greenlet& other) const noexcept {
    const cpython::ObjectLock lock(object());
    return parent_ == other.object();
  }
  // The greenlet that goes on when this one finishes: the one that kills it and waits, if any;
  // otherwise its parent.
  Ref heir() const noexcept {
    return kills_ != nullptr && kills_->heir_ != nullptr ? Ref::share(kills_->heir_->object())
                                                         : parent();
  }
  bool has_dead_parent() const noexcept {
    const Ref now = parent();
    return now && of(now.get()).is_dead();
  }
  // Makes `parent` the parent, and puts the old one into `parent`. Returns false and changes
  // nothing if the chain of parents would become a cycle.
  bool exchange_parent(Ref& parent) noexcept;
  // The greenlet whose thread counts as this one's: this one if it is running, suspended or
  // abandoned; otherwise its nearest ancestor of these states, or the last ancestor.
  Ref thread_representative() const noexcept;

  // The bytes of C stack to start with; zero for the default. Rounded up to kStackUnit, so that the
  // number fits into two bytes.
  std::size_t wanted_stack_bytes() const noexcept {
    return wanted_stack_units_.load(std::memory_order_relaxed) * kStackUnit;
  }
  void set_wanted_stack_bytes(std::size_t bytes) noexcept {
    wanted_stack_units_.store(static_cast<std::uint16_t>((bytes + kStackUnit - 1) / kStackUnit),
                              std::memory_order_relaxed);
  }

  cpython::StackState& stack_state() noexcept { return stack_state_; }
  const cpython::StackState& stack_state() const noexcept { return stack_state_; }
  context::Context& context() noexcept { return context_; }
  // Its stack; of a main greenlet only the boundary is known.
  const stack::Region& region() const noexcept { return region_; }
  // The bytes of C stack in use while suspended.
  std::size_t stack_in_use() const noexcept;

  // True for a scheduler, such as the hubs of gevent and eventlet: code that did not run in this
  // greenlet has given it to another greenlet as parent. See KillCause.
  bool is_scheduler() const noexcept { return is_scheduler_.load(std::memory_order_relaxed); }
  void set_scheduler() noexcept { is_scheduler_.store(true, std::memory_order_relaxed); }

  // --- what killing.h, thread_end.h and collection.h record here ---

  // Keeps it: its thread owns a reference until it finishes.
  void keep() noexcept;
  // Abandons it, a suspended greenlet or the running one. Call it with module().owners held.
  void abandon(const cpython::ImplFields& fields) noexcept;
  // The same for the main greenlet of a thread.
  void abandon_main() noexcept;

  // A call of kill() that waits for `killed` to finish; it lies on the stack of the greenlet that
  // waits. Several calls may wait for one greenlet, and any of them may return first.
  class WaitingKill {
   public:
    // `waiter` is the greenlet that waits. `heir` is the same, or null if the parent shall be the
    // heir. Both are borrowed.
    WaitingKill(Greenlet& killed, Greenlet& waiter, Greenlet* heir) noexcept
        : killed_(killed),
          waiter_(waiter),
          heir_(heir),
          outer_(std::exchange(killed.kills_, this)) {
      ++waiter_.waiting_kills_;
    }
    ~WaitingKill() {
      --waiter_.waiting_kills_;
      WaitingKill** link = &killed_.kills_;
      while (*link != this) [[unlikely]] {
        link = &(*link)->outer_;
      }
      *link = outer_;
    }
    WaitingKill(const WaitingKill&) = delete;
    WaitingKill& operator=(const WaitingKill&) = delete;

   private:
    friend class Greenlet;

    Greenlet& killed_;
    Greenlet& waiter_;
    Greenlet* heir_;
    WaitingKill* outer_;
  };
  bool is_being_killed() const noexcept { return kills_ != nullptr; }

  // Suspended, and its stack lies elsewhere: see freezing.h.
  bool is_frozen() const noexcept {
    return state_.load(std::memory_order_relaxed) == marked(kFrozen);
  }

  // How often the end of its thread has killed it.
  int kills_at_end() const noexcept { return kills_at_end_; }
  void set_kills_at_end(int kills) noexcept { kills_at_end_ = kills; }

  // The collection that is under way has finalized it, in another thread than its owner. Only the
  // thread that collects calls these two.
  void set_found_by_collector() noexcept { found_by_collector_ = true; }
  bool take_found_by_collector() noexcept { return std::exchange(found_by_collector_, false); }

  // True in the first call: a subclass's __del__ is called only once, however often the greenlet is
  // finalized.
  bool claim_del() noexcept { return !std::exchange(del_called_, true); }

  // What tools have noted of a greenlet (core/listing.h). Few greenlets have any.
  struct Notes {
    PyObject* name = nullptr;    // a str that inspect.set_name() has set, or null; owned
    PyObject* origin = nullptr;  // the frames that made it, as list_frames(), or null; owned
  };
  // Null if there are none. To read the name, hold the object's own lock.
  const Notes* notes() const noexcept { return notes_; }
  // Makes them if there are none; null without an exception if there is no memory. Call it under
  // the object's own lock.
  Notes* make_notes() noexcept;

  // Its number in recordings; see timeline.h. Written by its owner, or while the world is stopped.
  std::uint64_t serial() const noexcept { return serial_; }
  void set_serial(std::uint64_t serial) noexcept { serial_ = serial; }
  // The first argument of its run, borrowed; null if there is none. For its owner, and for a look
  // while the owner cannot run.
  PyObject* first_argument() const noexcept {
    if (args_ == nullptr || args_is_single_) {
      return args_;
    }
    return PyTuple_GET_SIZE(args_) > 0 ? PyTuple_GET_ITEM(args_, 0) : nullptr;
  }

  // Visits what the control block owns, and the suspended stack.
  int traverse(visitproc visit, void* arg) noexcept;
  // Breaks cycles through a greenlet that is not suspended. A suspended one keeps everything.
  void clear() noexcept;

 private:
  friend struct DebugLayout;  // debug_layout.cpp
  friend class DroppedQueue;  // next_queued_, is_queued_, queued_by_collector_
  friend class Freezer;       // frozen_, and the stack
  friend class GreenletList;  // next_, previous_
  friend class Sweep;         // marks, and the pages that a suspended stack does not need
  friend class Thread;        // the start, the switch and the finish

  // For its owner: the state with its mark. Equal to kSuspended if suspended without a mark.
  State raw_state() const noexcept { return state_.load(std::memory_order_relaxed); }
  // The mark of a suspended greenlet is the number of laps of the sweep that have found it so, or:
  static constexpr unsigned kOnlyMarked = 100;  // no lap has; its next switch shall be an event
  static constexpr unsigned kTrimmed =
      101;  // its pages have been given back; so many laps ago as it is more
  static constexpr unsigned kRefused = 249;  // and it cannot be frozen
  static constexpr unsigned kFrozen = 250;   // its stack lies at frozen_
  static constexpr State marked(unsigned mark) noexcept {
    // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): any value of its type is one
    return static_cast<State>(static_cast<unsigned>(State::kSuspended) + mark);
  }
  unsigned laps_waited() const noexcept {
    const State now = raw_state();
    return now == marked(kOnlyMarked)
               ? 0
               : static_cast<unsigned>(now) - static_cast<unsigned>(State::kSuspended);
  }
  // True if it can be entered as it is: suspended, and not frozen. One comparison.
  bool is_in_place() const noexcept {
    return static_cast<std::uint8_t>(static_cast<unsigned>(raw_state()) -
                                     static_cast<unsigned>(State::kSuspended)) < kFrozen;
  }
  bool is_trimmed() const noexcept { return raw_state() >= marked(kTrimmed); }
  bool is_refused() const noexcept { return raw_state() == marked(kRefused); }
  unsigned laps_since_trimmed() const noexcept {
    return static_cast<unsigned>(raw_state()) - static_cast<unsigned>(marked(kTrimmed));
  }
  void set_mark(unsigned mark) noexcept { state_.store(marked(mark), std::memory_order_release); }

  static constexpr std::size_t kStackUnit = std::size_t{64} << 10;
  static_assert(stack::kMaxSize / kStackUnit <= UINT16_MAX);

  // Calls run with the arguments of the start. The control block owns them during the call, and the
  // collector visits them there. The C stack has no reference of its own to any.
  PyObject* call_run() noexcept;

  // True if the control block lies in the same memory as its object, right behind it. Not so for
  // subclasses, which may append fields there.
  bool is_embedded() const noexcept { return reinterpret_cast<const Object*>(this) == object_ + 1; }

  void drop_notes() noexcept;

  // What destroy() and clear() have in common: drops all references, with the one to the parent
  // that they have taken from parent_.
  void drop_references(Ref parent) noexcept;

  // cppcheck-suppress uninitMemberVarPrivate  ; see frozen_
  Greenlet(Object* object, ModuleState* module) noexcept : object_(object), module_(module) {}

  // What a switch reads and writes (state_, thread_, object_, context_, stack_state_), close
  // together. The small fields fill the gap behind state_.
  std::atomic<State> state_{State::kNew};
  bool is_main_ = false;
  // What is to be let go when its run is over: the reference of keep(), and the bytes at frozen_
  // though it has been thawed (Freezer::thaw()).
  static constexpr std::uint8_t kIsKept = 1;
  static constexpr std::uint8_t kKeepsFrozen = 2;
  std::uint8_t remaining_ = 0;
  std::atomic<bool> is_finishing_{false};  // its run is over, and it looks for its heir
  std::atomic<bool> is_scheduler_{false};
  bool del_called_ = false;
  std::atomic<std::uint16_t> wanted_stack_units_{0};
  std::uint8_t laps_to_trim_ = 4;  // see Sweep
  int kills_at_end_ = 0;
  bool is_queued_ = false;            // in its owner's DroppedQueue
  bool queued_by_collector_ = false;  // and a collection has put it there
  bool found_by_collector_ = false;
  bool args_is_single_ = false;      // see args_
  std::uint32_t waiting_kills_ = 0;  // how many WaitingKills lie on its stack
  std::atomic<Thread*> thread_{nullptr};
  Object* const object_;
  context::Context context_;
  cpython::StackState stack_state_;

  // The calls of kill() that wait for this greenlet to finish, the last one first.
  WaitingKill* kills_ = nullptr;

  // What a switch does not need.
  ModuleState* const module_;
  PyObject* parent_ = nullptr;
  PyObject* run_ = nullptr;
  PyObject* args_ = nullptr;    // of the call of run, while it lasts: a tuple, or a single argument
  PyObject* kwargs_ = nullptr;  // their dict, or the tuple of their names
  Notes* notes_ = nullptr;
  std::uint64_t serial_ = 0;
  // Without an initial value: it has one only while is_frozen(), or with kKeepsFrozen.
  FrozenStack* frozen_;
  stack::Region region_;      // of a main greenlet only the boundary, about where its stack begins
  Greenlet* next_ = nullptr;  // in the GreenletList of its thread
  Greenlet* previous_ = nullptr;
  Greenlet* next_queued_ = nullptr;
};

}  // namespace greenlet::core
