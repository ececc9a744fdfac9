// What a thread state keeps per stack, by CPython version: saved when a greenlet is left, put
// back when it is entered. The hot half of a switch, so everything here is inline and neither
// allocates nor calls Python.
//
// PyThreadState.tracing is not among it: while a trace function runs, nothing in its thread is
// traced, in whatever greenlet. Debuggers rely on that.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "cpython/thread_anchors.h"

namespace greenlet::cpython {

// C calls that CPython 3.12 and 3.13 allow on a stack of 8 MiB (they count calls, 3.14+ looks at
// the stack pointer, 3.11 counts Python and C calls together).
#if PY_VERSION_HEX >= 0x030d0000 && PY_VERSION_HEX < 0x030e0000
inline constexpr int kCRecursionLimit = Py_C_RECURSION_LIMIT;
#elif PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030d0000
inline constexpr int kCRecursionLimit = C_RECURSION_LIMIT;
#endif
inline constexpr std::size_t kThreadStackBytes = std::size_t{8} << 20;

// The interpreter's view of one suspended stack. Owned by a greenlet, touched only by the thread
// that runs it; the collector and gr_frame read it while that thread cannot run.
class StackState {
 public:
  // Makes this the state of a stack that has not run: no frames, no exception being handled.
  // `data` is where Python frames will lie (the interpreter's data stack).
  // A context that was set before the start is kept.
  void start(PyThreadState* tstate, const ThreadAnchors& anchors, const std::byte* stack_low,
             std::byte* data, std::size_t data_bytes) noexcept;

  // Takes the running stack's state out of the thread state. Nothing that can run Python or the
  // collector may follow before restore() of another StackState.
  inline void save(PyThreadState* tstate, const ThreadAnchors& anchors) noexcept;
  inline void restore(PyThreadState* tstate, const ThreadAnchors& anchors) noexcept;

  // Where the operands of the call that leaves this stack lie, if its innermost Python frame made
  // the call: `args` as a vectorcall has it. Only with that can traverse() know how much of the
  // frame's value stack is in use before 3.14. To be told anew, or with null, at each save().
  void set_operands([[maybe_unused]] PyObject* const* args,
                    [[maybe_unused]] PyObject* const* end) noexcept {
#if PY_VERSION_HEX < 0x030e0000
    operands_ = args;
    operands_end_ = end;
#endif
  }

  // True if the stack that restore() has just put in place, and that runs now, needs catch_up()
  // before it goes on. Rare.
  inline bool must_catch_up(PyThreadState* tstate) const noexcept;
  // Catches up with what changed while the stack was suspended: holds what its frames refer to if a
  // collection has found `owner`, its greenlet, to be garbage; lets its generators be finalized
  // again; instruments its frames for monitoring tools that came or went; and takes its innermost
  // critical section's lock again. May wait for other threads, detach and let a collection happen.
  void catch_up(PyThreadState* tstate, PyObject* owner) noexcept;

  // For generators under way in a suspended stack, which is unwound with them. The collector may
  // come to one first, and its finalizer could do nothing but raise "generator already executing".
  // So those that a visit meets are marked as finalized already. catch_up() takes that back, except
  // from those that a collection may still come to.
  void mark_generators() const noexcept;
  void unmark_generators() noexcept;

  // The thread is ending: the suspended frames will never run again, nor be visited. Holds what
  // they refer to, for someone may have frame objects of them. Keeps the collector from finalizing
  // generators that are under way in them, which would only raise, and cuts the frames off from the
  // thread state.
  void abandon(const ThreadAnchors& anchors) noexcept;

  // The context variables of a suspended or unstarted stack; owned, may be null.
  PyObject* context() const noexcept { return context_; }
  // Replaces it and returns the old one; takes and gives a reference.
  PyObject* exchange_context(PyObject* context) noexcept;

  // Its stack has ended: no frame of it is left to visit or to enter again.
  void finish() noexcept;
  // The same for the stack that runs, right before the thread state takes over another one's:
  // takes its context out of it, which a dead greenlet keeps.
  void finish_running(PyThreadState* tstate) noexcept;

  // Forgets what exception the running stack handles; may run Python code.
  static void clear_handled_exception(PyThreadState* tstate) noexcept;

  // The innermost complete frame of a suspended stack, a new reference; null without an exception
  // if there is none. `tstate` is the calling thread's.
  PyFrameObject* innermost_frame(PyThreadState* tstate) const noexcept;

  // Visits each reference that the suspended stack owns: frames, C stack references, context,
  // handled exceptions. Never one that is not owned; see frames.cpp for what is exact where.
  int traverse(visitproc visit, void* arg) const noexcept;
  // From now on the suspended stack has a counted reference to all that it refers to by uncounted
  // ones. Free-threaded builds do not count references from a stack to functions, classes, modules
  // and code objects. Instead a collection frees none that it finds on one; but then it has every
  // reference to them counted if they were garbage and came back to life, and, at the end of the
  // interpreter, in any case. It sees to that for generators and frame objects
  // (disable_deferred_refcounting() of Python/gc_free_threading.c), not for stacks. For the end,
  // traverse() does this.
  void hold() const noexcept;
  // The same in the next traversal that marks what is alive.
  void hold_when_marked() noexcept {
#ifdef Py_GIL_DISABLED
    hold_when_marked_ = true;
#endif
  }
  // When the stack has ended.
  void release_held() noexcept {
#ifdef Py_GIL_DISABLED
    if (held_ != nullptr) [[unlikely]] {
      release_held_slowly();
    }
#endif
  }
  // Where the Python frames of the suspended stack end in its data area, the `data` of start().
  // What lies above is not in use: the frames of generators, and those in further chunks of the
  // data stack, are elsewhere.
  const std::byte* data_end(const std::byte* data) const noexcept {
    const auto* const root = reinterpret_cast<const _PyStackChunk*>(data);
    return reinterpret_cast<const std::byte*>(data_chunk_ == root ? data_top_
                                                                  : &root->data[root->top]);
  }
  // Reads what traverse() is about to read, but waits for nothing of it.
  void read_ahead() const noexcept;

 private:
  friend class BorrowedStack;

  int visit_frames(visitproc visit, void* arg) const noexcept;
  void hold(PyObject* object) const noexcept;
  void release_held_slowly() noexcept;
#if PY_VERSION_HEX >= 0x030e0000
  [[gnu::cold]] void own_executor(PyObject* executor) noexcept;
#endif
  _PyInterpreterFrame* innermost() const noexcept;
  void mark_generator(_PyInterpreterFrame* frame) const noexcept;
  void unmark_those_left_alone() noexcept;

#if PY_VERSION_HEX < 0x030e0000
  PyObject* const* operands_ = nullptr;
  PyObject* const* operands_end_ = nullptr;
#endif
#if PY_VERSION_HEX >= 0x030d0000
  _PyInterpreterFrame* frame_ = nullptr;
  // The machine code of the JIT that the stack was in when it was left; see own_executor().
  PyObject* executor_ = nullptr;
#else
  _PyCFrame* cframe_ = nullptr;
  _PyCFrame root_cframe_ = {};
#endif
  mutable bool was_visited_ = false;  // in a way that catch_up() has to look after
  _PyErr_StackItem* exc_info_ = nullptr;
  PyObject* context_ = nullptr;
  _PyStackChunk* data_chunk_ = nullptr;
  PyObject** data_top_ = nullptr;
  PyObject** data_limit_ = nullptr;
  int depth_ = 0;     // Python calls under way (and C calls on 3.11)
  int headroom_ = 0;  // see PyThreadState.recursion_headroom
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
  int c_recursion_remaining_ = 0;
#endif
#if PY_VERSION_HEX < 0x030d0000
  int trash_nesting_ = 0;
#endif
  PyObject* delete_later_ = nullptr;
#if PY_VERSION_HEX >= 0x030e0000
  StackLimits limits_;
#endif
#if PY_VERSION_HEX >= 0x030f0000
  std::uintptr_t monitoring_version_ = 0;  // what its frames are instrumented for; see save()
#endif
#ifdef Py_GIL_DISABLED
  std::uintptr_t critical_section_ = 0;
  void* c_stack_refs_ = nullptr;
  mutable std::uint32_t held_count_ = 0;
  mutable std::uint32_t held_capacity_ = 0;
  mutable PyObject** held_ = nullptr;  // see hold()
  mutable bool hold_when_marked_ = false;
#endif
  _PyErr_StackItem exc_state_ = {};  // the bottom of this stack's handled exceptions
};

// While one of these lives, the running stack makes its C calls on a suspended stack, below what
// that has there: CPython lets them go as deep as calls of the suspended one.
class BorrowedStack {
 public:
  BorrowedStack(PyThreadState* tstate, const ThreadAnchors& anchors,
                const StackState& owner) noexcept;
  ~BorrowedStack();
  BorrowedStack(const BorrowedStack&) = delete;
  BorrowedStack& operator=(const BorrowedStack&) = delete;

 private:
#if PY_VERSION_HEX >= 0x030e0000
  StackLimits* const limits_;
  const StackLimits own_;
#else
  PyThreadState* const tstate_;
  int taken_;  // calls that the suspended stack leaves fewer than the running one has
#endif
};

// Replaces the context of the running stack and returns the old one; takes and gives a reference.
PyObject* exchange_running_context(PyThreadState* tstate, PyObject* context) noexcept;

inline PyObject*& delete_later_of(PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return tstate->delete_later;
#elif PY_VERSION_HEX >= 0x030c0000
  return tstate->trash.delete_later;
#else
  return tstate->trash_delete_later;
#endif
}

void suspend_critical_sections_slowly(PyThreadState* tstate) noexcept;

// Critical sections (free-threaded builds) are C frames on the stack we leave that hold mutexes.
// A stack must not keep them while it is suspended, or another greenlet of this thread waits for
// its own thread: let go as a thread that detaches does.
inline void suspend_critical_sections([[maybe_unused]] PyThreadState* tstate) noexcept {
#ifdef Py_GIL_DISABLED
  if (tstate->critical_section != 0) [[unlikely]] {
    suspend_critical_sections_slowly(tstate);
  }
#endif
}

#if PY_VERSION_HEX >= 0x030f0000
// Changes whenever the set of monitoring events does (Python/instrumentation.c); the high bits of
// the word in whose low bits others ask the thread for its attention.
inline std::uintptr_t monitoring_version_of(PyThreadState* tstate) noexcept {
  constexpr std::uintptr_t kEventsMask = 0xff;  // _PY_EVAL_EVENTS_MASK
  return __atomic_load_n(&tstate->eval_breaker, __ATOMIC_RELAXED) & ~kEventsMask;
}
#endif

[[gnu::always_inline]] inline bool StackState::must_catch_up(
    [[maybe_unused]] PyThreadState* tstate) const noexcept {
  bool needed = was_visited_;
#if PY_VERSION_HEX >= 0x030f0000
  needed |= monitoring_version_ != monitoring_version_of(tstate);
#endif
#ifdef Py_GIL_DISABLED
  constexpr std::uintptr_t kInactive = 1;  // _Py_CRITICAL_SECTION_INACTIVE
  needed |= (critical_section_ & kInactive) != 0;
#endif
  return needed;
}

[[gnu::always_inline]] inline void StackState::save(
    PyThreadState* tstate, [[maybe_unused]] const ThreadAnchors& anchors) noexcept {
  suspend_critical_sections(tstate);
#if PY_VERSION_HEX >= 0x030d0000
  frame_ = tstate->current_frame;
#if PY_VERSION_HEX >= 0x030e0000
  if (executor_ != tstate->current_executor) [[unlikely]] {
    own_executor(tstate->current_executor);
  }
#else
  executor_ = tstate->previous_executor;
#endif
#else
  cframe_ = tstate->cframe;
#endif
  exc_info_ = tstate->exc_info;
  context_ = tstate->context;
  data_chunk_ = tstate->datastack_chunk;
  data_top_ = tstate->datastack_top;
  data_limit_ = tstate->datastack_limit;
  headroom_ = tstate->recursion_headroom;
  // Depth is saved, not what remains of it: sys.setrecursionlimit() may move the limit meanwhile.
#if PY_VERSION_HEX >= 0x030c0000
  depth_ = tstate->py_recursion_limit - tstate->py_recursion_remaining;
#else
  depth_ = tstate->recursion_limit - tstate->recursion_remaining;
#endif
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
  c_recursion_remaining_ = tstate->c_recursion_remaining;
#endif
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030d0000
  trash_nesting_ = tstate->trash.delete_nesting;
#elif PY_VERSION_HEX < 0x030c0000
  trash_nesting_ = tstate->trash_delete_nesting;
#endif
  delete_later_ = delete_later_of(tstate);
#if PY_VERSION_HEX >= 0x030e0000
  limits_ = *anchors.stack_limits;
#endif
#if PY_VERSION_HEX >= 0x030f0000
  // RESUME instruments nothing while a trace function runs, so what was called there and goes on
  // later must be instrumented then: with `tracing` in its low bits this equals no version.
  monitoring_version_ = monitoring_version_of(tstate) + static_cast<unsigned>(tstate->tracing);
#endif
#ifdef Py_GIL_DISABLED
  critical_section_ = tstate->critical_section;
  c_stack_refs_ = *anchors.c_stack_refs;
#endif
}

[[gnu::always_inline]] inline void StackState::restore(
    PyThreadState* tstate, [[maybe_unused]] const ThreadAnchors& anchors) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  tstate->current_frame = frame_;
#if PY_VERSION_HEX >= 0x030e0000
  tstate->current_executor = executor_;
#else
  tstate->previous_executor = executor_;
#endif
#else
#if PY_VERSION_HEX < 0x030c0000
  // 3.11 keeps "is anybody tracing" in each _PyCFrame and hands it on as calls nest and return. A
  // tracer that was set or removed on another stack meanwhile counts for the whole thread.
  const bool traced = tstate->tracing == 0 && (tstate->c_tracefunc || tstate->c_profilefunc);
  cframe_->use_tracing = traced ? 255 : 0;
#endif
  tstate->cframe = cframe_;
#endif
  tstate->exc_info = exc_info_;
  if (tstate->context != context_) {
    // ContextVar.get() caches its value under this version.
    ++tstate->context_ver;
    tstate->context = context_;
  }
  context_ = nullptr;
  tstate->datastack_chunk = data_chunk_;
  tstate->datastack_top = data_top_;
  tstate->datastack_limit = data_limit_;
  tstate->recursion_headroom = headroom_;
#if PY_VERSION_HEX >= 0x030c0000
  tstate->py_recursion_remaining = tstate->py_recursion_limit - depth_;
#else
  tstate->recursion_remaining = tstate->recursion_limit - depth_;
#endif
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
  tstate->c_recursion_remaining = c_recursion_remaining_;
#endif
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030d0000
  tstate->trash.delete_nesting = trash_nesting_;
#elif PY_VERSION_HEX < 0x030c0000
  tstate->trash_delete_nesting = trash_nesting_;
#endif
  delete_later_of(tstate) = delete_later_;
#if PY_VERSION_HEX >= 0x030e0000
  *anchors.stack_limits = limits_;
#endif
#ifdef Py_GIL_DISABLED
  tstate->critical_section = critical_section_;
  *anchors.c_stack_refs = c_stack_refs_;
#endif
}

}  // namespace greenlet::cpython
