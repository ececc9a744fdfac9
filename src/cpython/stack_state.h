// What CPython keeps per stack: saved when a greenlet is left, restored when it is entered. This is
// the hot half of a switch, so save() and restore() are inline, allocate nothing and do not call
// Python. The other methods are in stack_state.cpp; those that walk over the frames (traverse(),
// hold(), mark_generators(), unmark_generators(), read_ahead()) are in frames.cpp, and those that
// move it to another address in relocation.cpp.
//
// Where a new field of CPython's thread state goes
// ------------------------------------------------
// CPython 3.16 adds a field to PyThreadState or _PyThreadStateImpl that belongs to the stack, and
// not to the thread:
//
//   1. stack_state_316.h      copy the latest stack_state_3*.h, and add the field to SavedFields:
//                             Copied<&PyThreadState::name> if it is copied out and in, else a
//                             struct of its own (saved_fields.h says which functions it needs;
//                             a field of free-threaded builds is in saved_fields_free_threaded.h
//                             and .cpp). A struct that two versions share moves to saved_fields.h
//   2. stack_state.h          include it below, and raise the number in the #error
//      stack_state_315.cpp    MonitoringVersion::catch_up(), which also serves later versions
//   3. impl_fields.h          only if the field is in _PyThreadStateImpl; ImplFields::of() in
//                             layout.cpp finds it
//   4. layout.cpp             check_layout(): the offset, if _PyRuntime.debug_offsets tells it
//
// If something else has changed as well:
//
//   5. internals.h            which internal headers exist, and how they compile as C++
//   6. frames_stackrefs.cpp   what a frame refers to; frames.cpp: how frames are chained
//   7. gc_protocol.cpp        the passes of the collector, its bits, how it counts
//   8. objects.cpp, errors.cpp, thread_states.cpp, locks.cpp, executor.cpp, c_callers.cpp,
//      stack_bounds.cpp: the header of each says which part of CPython it is about
//
// Not every field of a thread state belongs to the stack. PyThreadState.tracing, for one, does not:
// while a trace function runs, nothing in its thread is traced, in whatever greenlet. Debuggers
// rely on that. If a field is new, ask what a call under way has put there and will look for when
// it returns.
//
// What tells whether it is right: the build fails where a name or a copied constant is gone
// (static_assert); `make test-all debug-tests` shows a forgotten field in
// tests/python/test_frames.py, test_generators.py, test_context.py, test_debuggers.py,
// test_collection.py and, for free-threaded builds, test_critical_sections.py and
// test_threads_at_once.py; `make test-layout` shows an unchecked layout; `make test-jit` a change
// in executors; `make bench-guard` what the field costs.
#pragma once

#include <Python.h>

#include <cstddef>

#include "cpython/held_references.h"
#include "cpython/impl_fields.h"
#include "cpython/relocation.h"
#include "cpython/saved_fields.h"

// Each of these headers defines three types. SavedFields is the list of what its version keeps per
// stack, with how each field is saved and restored. CCallDepth is the field that limits how deep C
// calls may nest. CallOperands is Operands if the operands of a call must be known, and otherwise
// NoOperands (see set_operands()).
#if PY_VERSION_HEX >= 0x03100000
#error "greenlet does not know this CPython: see the steps at the top of cpython/stack_state.h"
#elif PY_VERSION_HEX >= 0x030f0000
#include "cpython/stack_state_315.h"
#elif PY_VERSION_HEX >= 0x030e0000
#include "cpython/stack_state_314.h"
#elif PY_VERSION_HEX >= 0x030d0000
#include "cpython/stack_state_313.h"
#elif PY_VERSION_HEX >= 0x030c0000
#include "cpython/stack_state_312.h"
#else
#include "cpython/stack_state_311.h"
#endif

namespace greenlet::cpython {

// The interpreter's view of one suspended stack. Owned by a greenlet, and touched only by the
// thread that runs the greenlet. The collector and gr_frame read it while that thread cannot run.
class StackState {
 public:
  // Makes this the state of a stack that has not run: no frames, no exception being handled. The C
  // stack is [stack_low, data). Python frames will lie in the `data_bytes` bytes from `data` on.
  // A context that was set before the start is kept.
  void start(PyThreadState* tstate, const ImplFields& impl, const std::byte* stack_low,
             std::byte* data, std::size_t data_bytes) noexcept;

  // Takes the running stack's state out of the thread state. Until restore() of another StackState
  // nothing may run that can run Python or the collector.
  [[gnu::always_inline]] void save(PyThreadState* tstate, const ImplFields& impl) noexcept {
    fields_.save(tstate, impl);
  }
  [[gnu::always_inline]] void restore(PyThreadState* tstate, const ImplFields& impl) noexcept {
    fields_.restore(tstate, impl);
  }

  // Tells the operands of the call by which the innermost Python frame leaves this stack; empty if
  // unknown. Before 3.14 traverse() needs them to know how much of the frame's value stack is in
  // use. Thread::resume() and Thread::deliver() call it before each switch. Nothing visits the
  // frames after Thread::give_back_thread_state(), so that saves without it.
  void set_operands(const Operands& operands) noexcept { operands_.set(operands); }

  // True if this stack, which restore() has put in place and which runs now, needs catch_up()
  // before it goes on. Rare.
  [[gnu::always_inline]] bool must_catch_up(PyThreadState* tstate) const noexcept {
    return was_visited_by_collector_ | fields_.must_catch_up(tstate);
  }
  // Catches up with what changed while the stack was suspended. Holds what its frames refer to if a
  // collection has found `owner`, its greenlet, to be garbage; allows its generators to be
  // finalized again; instruments its frames for monitoring tools that came or went; and takes the
  // lock of its innermost critical section again. May wait for other threads, detach and let a
  // collection run.
  void catch_up(PyThreadState* tstate, PyObject* owner) noexcept;

  // A suspended stack is unwound together with the generators that are under way in it. The
  // collector may come to such a generator first, and its finalizer could do nothing but raise
  // "generator already executing". So traverse() and mark_generators() mark these generators as
  // finalized already. catch_up() takes the mark back, except from generators that a collection may
  // still finalize.
  void mark_generators() noexcept;
  void unmark_generators() noexcept;

  // The thread is ending: the suspended frames will never run again and are never visited again.
  // Holds what they refer to, because frame objects of them may be in use. Keeps the collector from
  // finalizing generators that are under way in them, which would only raise. Cuts the frames off
  // from the thread state.
  void abandon(const ImplFields& impl) noexcept;

  // The context variables of a suspended or unstarted stack; owned, may be null.
  PyObject* context_variables() const noexcept { return fields_.context; }
  // Replaces the context and returns the old one; takes and gives a reference.
  PyObject* exchange_context_variables(PyObject* context) noexcept;

  // The stack has ended: no frame of it is left to visit or to enter again.
  void finish() noexcept;
  // The same for the stack that runs, right before the thread state takes over another stack's
  // state: takes the context out of the thread state, because a dead greenlet keeps its context.
  void finish_running(PyThreadState* tstate) noexcept;

  // Forgets which exception the running stack handles; may run Python code.
  static void clear_handled_exception(PyThreadState* tstate) noexcept;
  // Makes up for the deallocations that CPython has put off because the stack was nearly full; may
  // run Python code. CPython does so itself at the next deallocation further out, if there is one.
  static void finish_deallocations(PyThreadState* tstate) noexcept;

  // The innermost frame of a suspended stack, complete or not; null if there is none.
  _PyInterpreterFrame* innermost() const noexcept { return fields_.innermost(); }
  // Where the pointer to it is. For looks that copy what they read; it need not be readable.
  const void* place_of_innermost() const noexcept { return fields_.place_of_innermost(); }
  // The innermost complete frame of a suspended stack, a new reference; null without an exception
  // if there is none. `tstate` is the calling thread's.
  PyFrameObject* innermost_frame(PyThreadState* tstate) const noexcept {
    return fields_.innermost_object(tstate);
  }

  // Visits each reference that the suspended stack owns: frames, C stack references, context,
  // handled exceptions. Never visits a reference that is not owned; frames_values.cpp and
  // frames_stackrefs.cpp say what is exact on which version. Marks generators, and may hold().
  int traverse(visitproc visit, void* arg) noexcept;
  // Adds a counted reference to each object to which the suspended stack has an uncounted one
  // (held_references.h says why). At the end of the interpreter traverse() calls it.
  void hold() noexcept;
  // Requests a hold() in the next traversal that marks what is alive.
  void hold_when_marked() noexcept { held_.request(); }
  // Drops the references that hold() added. For a stack that has ended.
  void release_held() noexcept { held_.release(); }

  // Where the Python frames of the suspended stack end in its data area, the `data` of start().
  // The memory above is not in use: the frames of generators, and those in further chunks of the
  // data stack, lie elsewhere.
  const std::byte* data_end(const std::byte* data) const noexcept {
    return fields_.end_in_root(data);
  }
  // Whether a suspended stack may be moved by relocate() now. `data` is that of start().
  bool may_be_relocated(const std::byte* data) const noexcept;
  // The bytes of a suspended stack have been copied: from its stack pointer to data_end(), or back.
  // Rebases what leads into them, in the copy and elsewhere. Before the stack goes on, its bytes
  // must be back where they were, and relocated accordingly. Runs no code but this.
  void relocate(const Relocation& moved) noexcept;
  // Whether other threads may look into frames of the suspended stack at this moment.
  bool is_seen_by_others() const noexcept;
  // Reads each frame of the chain, so that they are in the cache when traverse() comes to them.
  void read_ahead() const noexcept;

 private:
  friend class BorrowedStack;
  friend struct DebugLayout;  // offsets for the debug table

  int visit_frames(visitproc visit, void* arg) noexcept;
  void mark_generator(_PyInterpreterFrame* frame) noexcept;
  void unmark_generators_not_collected() noexcept;

  [[no_unique_address]] CallOperands operands_;
  bool was_visited_by_collector_ = false;  // since it was left, and in a way that needs catch_up()
  SavedFields fields_;
  [[no_unique_address]] HeldReferences held_;
  _PyErr_StackItem exc_state_ = {};  // the bottom of this stack's handled exceptions
};

// While one of these lives, the running stack makes its C calls on a suspended stack, below the
// frames that are there. CPython lets the calls go as deep as calls of the suspended stack.
class BorrowedStack {
 public:
  BorrowedStack(PyThreadState* tstate, const ImplFields& impl, const StackState& owner) noexcept
      : borrowed_(tstate, impl, owner.fields_) {}

 private:
  CCallDepth::Borrowed borrowed_;
};

// Replaces the context of the running stack and returns the old one; takes and gives a reference.
PyObject* exchange_running_context_variables(PyThreadState* tstate, PyObject* context) noexcept;

}  // namespace greenlet::cpython
