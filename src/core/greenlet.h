// One greenlet: the object that Python sees and the control block behind it.
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
class Sweep;
class Thread;

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
//   kNew ------> kRunning <----> kSuspended        a switch; kNew only as its first target
//                   |                |
//                   v                v
//                 kDead         kAbandoned         its run ended; its thread ended around it
//
// kRunning is the one greenlet that its thread runs at this moment. A main greenlet begins as
// kRunning and is kAbandoned with its thread. Written by the owner thread (kNew: by the thread
// that starts it); read by any.
//
// What is stored may be more than kSuspended: that is suspended, too, with a mark of the Sweep. Any
// switch takes the mark away, as it stores the bare state.
enum class State : std::uint8_t { kNew, kRunning, kDead, kAbandoned, kSuspended };

// The control block: everything of a greenlet that is not on its stack. Owned by its Object, of
// which there is exactly one. After the start only the owner thread changes it, with the exception
// of `parent`. The object's lock guards that, and `run` and the start itself; parents are changed
// under module().parents as well, so that who holds that sees chains of them that stay.
class Greenlet {
 public:
  // A new object of `type` and its control block, with the object `parent` as parent (null for a
  // main greenlet). Empty with an exception set if there is no memory.
  static Ref create(PyTypeObject* type, ModuleState* module, PyObject* parent) noexcept;
  // The object is going away: releases the control block and what it still owns. Not while
  // suspended.
  void destroy() noexcept;

  static Greenlet& of(PyObject* object) noexcept {
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

  // The thread it started in, while that lives and it has not ended; else null. Another thread may
  // compare it, but look into it only under module().owners.
  Thread* thread() const noexcept { return thread_.load(std::memory_order_acquire); }

  // The callable to run, a new reference; empty if none is set or it has started.
  Ref run() const noexcept;
  // False if it has started.
  bool set_run(Ref run) noexcept;

  // A new reference, empty for main greenlets.
  Ref parent() const noexcept;
  bool is_child_of(const Greenlet& other) const noexcept {
    const cpython::ObjectLock lock(object());
    return parent_ == other.object();
  }
  // Who goes on when this one ends: whoever kills it and waits for that, else its parent.
  Ref heir() const noexcept {
    return kills_ != nullptr && kills_->heir != nullptr ? Ref::share(kills_->heir->object())
                                                        : parent();
  }
  bool has_dead_parent() const noexcept {
    const Ref now = parent();
    return now && of(now.get()).is_dead();
  }
  // Puts `parent` in its place, and the old one into `parent`. False, and nothing done, if that
  // would close a circle of parents.
  bool exchange_parent(Ref& parent) noexcept;
  // The greenlet that says which thread this one belongs to: itself, or if it has not started or
  // is dead its nearest ancestor for which neither holds, or the last of the chain.
  Ref thread_representative() const noexcept;

  // Bytes of C stack that it is to start with; zero for the default. Rounded up to a unit that lets
  // every size fit into a gap between other fields.
  std::size_t wanted_stack_bytes() const noexcept {
    return wanted_stack_units_.load(std::memory_order_relaxed) * kStackUnit;
  }
  void want_stack_bytes(std::size_t bytes) noexcept {
    wanted_stack_units_.store(static_cast<std::uint16_t>((bytes + kStackUnit - 1) / kStackUnit),
                              std::memory_order_relaxed);
  }

  cpython::StackState& stack_state() noexcept { return stack_state_; }
  // Bytes of C stack in use while suspended.
  std::size_t stack_in_use() const noexcept;

  // For one that refused to die: its thread takes a reference, and drops it when it has ended.
  void keep() noexcept;
  // Another greenlet has been given this one as its parent, explicitly, by code that did not run in
  // this one. So it is a scheduler, such as the hubs of gevent and eventlet: see Thread::Cause.
  bool is_scheduler() const noexcept { return is_scheduler_.load(std::memory_order_relaxed); }
  void become_scheduler() noexcept { is_scheduler_.store(true, std::memory_order_relaxed); }
  // True once: a subclass's __del__ is called only once, however often the greenlet is finalized.
  bool may_call_del() noexcept { return !std::exchange(del_called_, true); }

  int traverse(visitproc visit, void* arg) noexcept;
  // Breaks cycles through a greenlet that is not suspended; one that is keeps everything.
  void clear() noexcept;

 private:
  friend class Sweep;
  friend class Thread;

  // For its owner: the state with its mark. Equal to kSuspended if suspended without one.
  State raw_state() const noexcept { return state_.load(std::memory_order_relaxed); }
  // The marks: how many laps have found it suspended, or one of these.
  static constexpr unsigned kOnlyMarked = 100;
  static constexpr unsigned kTrimmed = 101;
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
  bool is_trimmed() const noexcept { return raw_state() == marked(kTrimmed); }
  void set_mark(unsigned mark) noexcept { state_.store(marked(mark), std::memory_order_release); }

  // A call of Thread::kill(), on the stack of the greenlet that waits in it. Several may wait for
  // one greenlet, and any of them may return first.
  struct Kill {
    Greenlet* heir;  // the greenlet that waits, not owned; null if the parent is the heir
    Kill* outer;
  };
  void remove_kill(const Kill& kill) noexcept {
    Kill** link = &kills_;
    while (*link != &kill) [[unlikely]] {
      link = &(*link)->outer;
    }
    *link = kill.outer;
  }

  static constexpr std::size_t kStackUnit = std::size_t{64} << 10;
  static_assert(stack::kMaxSize / kStackUnit <= UINT16_MAX);

  // Calls run with the arguments it was started with. The control block keeps them all meanwhile,
  // where the collector sees them, and the C stack has no reference of its own to any.
  PyObject* call_run() noexcept;

  // True if the control block lies in the same memory as its object, right behind it. Not so for
  // subclasses, which may append fields there.
  bool is_embedded() const noexcept { return reinterpret_cast<const Object*>(this) == object_ + 1; }

  // What destroy() and clear() have in common: all references but the one to the parent.
  void drop_rest() noexcept;

  Greenlet(Object* object, ModuleState* module) noexcept : object_(object), module_(module) {}

  // Hot: what one switch reads and writes, in the order it does.
  std::atomic<State> state_{State::kNew};
  bool is_main_ = false;
  bool kept_ = false;  // refused to die; its thread owns a reference to it
  std::atomic<bool> is_scheduler_{false};
  bool del_called_ = false;
  std::atomic<std::uint16_t> wanted_stack_units_{0};
  std::uint8_t laps_to_trim_ = 4;  // see Sweep
  int end_tries_ = 0;              // how often its thread, which is ending, has tried to kill it
  // In the queue of its thread, and put there by the collector; both guarded by module().owners.
  bool is_pending_ = false;
  bool collected_ = false;
  bool is_found_ = false;  // finalized by the collection that is under way, in that one's thread
  bool args_are_one_ = false;  // see args_
  std::atomic<Thread*> thread_{nullptr};
  Object* const object_;
  context::Context context_;
  cpython::StackState stack_state_;

  // The calls of Thread::kill() that wait for this greenlet to end, the last one first.
  Kill* kills_ = nullptr;

  // Cold.
  ModuleState* const module_;
  PyObject* parent_ = nullptr;
  PyObject* run_ = nullptr;
  PyObject* args_ = nullptr;    // of the call of run, while it lasts: a tuple, or the only one
  PyObject* kwargs_ = nullptr;  // their dict, or the tuple of their names
  stack::Region region_;  // of a main greenlet only the boundary, about where its stack begins
  // Started greenlets of one thread form a list, so that its end can end them.
  Greenlet* next_ = nullptr;
  Greenlet* previous_ = nullptr;
  Greenlet* next_pending_ = nullptr;  // in the queue of greenlets other threads dropped
};

}  // namespace greenlet::core
