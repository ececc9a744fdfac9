#include "cpython/stack_state.h"

#include <algorithm>
#include <utility>

#include "cpython/gc_protocol.h"
#include "cpython/internals.h"

namespace greenlet::cpython {

#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
namespace {

// How many nested C calls to allow on a stack. A thread with 8 MiB may have so many that not all of
// them fit if they are of the kind that takes most: a sort whose key function sorts. On a
// stack of that size we do as CPython does; programs may need it. On a smaller one all fit.
int c_recursion_limit(std::size_t stack_bytes) noexcept {
  constexpr std::size_t kMostForACall = 1408;                     // measured; rounded up a little
  constexpr std::size_t kForTheLastCall = std::size_t{48} << 10;  // it may have buffers
  if (stack_bytes >= kThreadStackBytes) {
    return kCRecursionLimit;
  }
  return static_cast<int>(std::min(kCRecursionLimit * stack_bytes / kThreadStackBytes,
                                   (stack_bytes - kForTheLastCall) / kMostForACall));
}

}  // namespace
#endif

void StackState::start(PyThreadState* tstate, [[maybe_unused]] const ThreadAnchors& anchors,
                       [[maybe_unused]] const std::byte* stack_low, std::byte* data,
                       std::size_t data_bytes) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  frame_ = nullptr;
#if PY_VERSION_HEX >= 0x030f0000
  // A chain of frames that does not end at the thread's base frame counts as torn for the
  // sampling profiler (Modules/_remote_debugging).
  frame_ = anchors.base_frame;
#endif
#else
  root_cframe_ = {};
  cframe_ = &root_cframe_;
#endif
  exc_state_ = {};
  exc_info_ = &exc_state_;
  // It inherits its starter's depth, so that greenlets which start greenlets without end meet the
  // recursion limit before they use up the memory.
#if PY_VERSION_HEX >= 0x030c0000
  depth_ = tstate->py_recursion_limit - tstate->py_recursion_remaining;
#else
  depth_ = tstate->recursion_limit - tstate->recursion_remaining;
#endif
  headroom_ = 0;
  delete_later_ = nullptr;
  was_visited_ = false;
#if PY_VERSION_HEX >= 0x030f0000
  monitoring_version_ = monitoring_version_of(tstate);
#endif
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
  c_recursion_remaining_ = c_recursion_limit(static_cast<std::size_t>(data - stack_low));
#endif
#if PY_VERSION_HEX < 0x030d0000
  trash_nesting_ = 0;
#endif
#if PY_VERSION_HEX >= 0x030e0000
  limits_ = StackLimits::of_stack(stack_low, data);
#endif
#ifdef Py_GIL_DISABLED
  critical_section_ = 0;
  c_stack_refs_ = nullptr;
#endif
  // The root chunk of the data stack, as pystate.c's push_chunk() would make it: CPython never
  // frees a chunk without a previous one, and skips the first slot of it to recognize it.
  auto* chunk = reinterpret_cast<_PyStackChunk*>(data);
  chunk->previous = nullptr;
  chunk->size = data_bytes;
  chunk->top = 0;
  data_chunk_ = chunk;
  data_top_ = &chunk->data[1];
  data_limit_ = reinterpret_cast<PyObject**>(data + data_bytes);
}

void StackState::finish() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  frame_ = nullptr;
#else
  cframe_ = nullptr;
#endif
#if PY_VERSION_HEX >= 0x030e0000
  if (executor_ != nullptr) [[unlikely]] {
    own_executor(nullptr);
  }
#endif
#ifdef Py_GIL_DISABLED
  c_stack_refs_ = nullptr;
#endif
  exc_state_ = {};
}

void StackState::finish_running(PyThreadState* tstate) noexcept {
  finish();
  context_ = tstate->context;
}

void StackState::abandon([[maybe_unused]] const ThreadAnchors& anchors) noexcept {
  hold();
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      mark_generator(frame);
    }
#if PY_VERSION_HEX >= 0x030f0000
    if (frame->previous == anchors.base_frame) {
      frame->previous = nullptr;  // part of the thread state; someone may hold a frame object
    }
#endif
  }
  finish();
}

#if PY_VERSION_HEX >= 0x030e0000
// A stack that waits in machine code of the JIT returns into the memory of an executor. CPython
// spares the executor that a thread state names as current, even if its last reference has gone
// (_Py_ClearExecutorDeletionList()). When the interpreter enters itself, its entry frame takes a
// reference to the executor of the caller (_PyEval_EvalFrameDefault()). So the executors further
// out are safe on any stack, and the innermost one has to be ours while the stack is suspended.
//
// The reference is kept until the stack is left the next time: a loop that waits again and again
// is then found in the same executor, and nothing is counted. It may be dropped in the middle of a
// switch: the deallocation of an executor runs no Python code and allocates nothing.
//
// traverse() does not visit it. Executors refer to executors only, so no cycle leads through it
// back to a greenlet, and the collector must not clear machine code that we return into.
//
// 3.13 needs nothing of this: there machine code holds a reference to itself while it runs, and
// previous_executor is one on its way from an executor to the next, which no switch interrupts.
void StackState::own_executor(PyObject* executor) noexcept {
#if PY_VERSION_HEX < 0x030f0000
  // 3.14 cannot bring back an executor whose last reference has gone: it frees those without a look
  // at their count, and crashes if one is deallocated again. (The executor that runs comes to that
  // if a C function discards it and then, without running Python code, leaves this stack.)
  if (executor != nullptr && Py_REFCNT(executor) == 0) {
    executor = nullptr;
  }
  // While 3.14 frees executors it marks the current ones as linked, and unmarks those only that it
  // was about to free. One that has been discarded and has an owner keeps the mark, and its
  // deallocation would unlink it from a list that it left long ago.
  if (executor_ != nullptr) {
    auto& data = reinterpret_cast<_PyExecutorObject*>(executor_)->vm_data;
    if (!data.valid) {
      data.linked = 0;
    }
  }
#endif
  PyObject* const old = std::exchange(executor_, Py_XNewRef(executor));
  Py_XDECREF(old);
}
#endif

// 3.14+ looks at the stack pointer. 3.12 and 3.13 count C calls for each stack. 3.11 counts C and
// Python calls together, and a stack may be as deep as the limit says; so what counts is the deeper
// of the two.
#if PY_VERSION_HEX >= 0x030e0000
BorrowedStack::BorrowedStack(PyThreadState*, const ThreadAnchors& anchors,
                             const StackState& owner) noexcept
    : limits_(anchors.stack_limits), own_(*limits_) {
  *limits_ = owner.limits_;
}

BorrowedStack::~BorrowedStack() { *limits_ = own_; }
#else
#if PY_VERSION_HEX >= 0x030c0000
BorrowedStack::BorrowedStack(PyThreadState* tstate, const ThreadAnchors&,
                             const StackState& owner) noexcept
    : tstate_(tstate), taken_(tstate->c_recursion_remaining - owner.c_recursion_remaining_) {
  tstate->c_recursion_remaining -= taken_;
}

BorrowedStack::~BorrowedStack() { tstate_->c_recursion_remaining += taken_; }
#else
BorrowedStack::BorrowedStack(PyThreadState* tstate, const ThreadAnchors&,
                             const StackState& owner) noexcept
    : tstate_(tstate),
      // Never less than nothing remains: CPython ends the process if it is much less.
      taken_(std::clamp(owner.depth_ - (tstate->recursion_limit - tstate->recursion_remaining), 0,
                        std::max(tstate->recursion_remaining, 0))) {
  tstate->recursion_remaining -= taken_;
}

BorrowedStack::~BorrowedStack() { tstate_->recursion_remaining += taken_; }
#endif
#endif

PyObject* StackState::exchange_context(PyObject* context) noexcept {
  return std::exchange(context_, context);
}

PyObject* exchange_running_context(PyThreadState* tstate, PyObject* context) noexcept {
  ++tstate->context_ver;
  return std::exchange(tstate->context, context);
}

void StackState::clear_handled_exception(PyThreadState* tstate) noexcept {
  PyObject* const handled = std::exchange(tstate->exc_info->exc_value, nullptr);
  Py_XDECREF(handled);
}

void StackState::catch_up([[maybe_unused]] PyThreadState* tstate, PyObject* owner) noexcept {
  if (was_visited_) {
    was_visited_ = false;
    // Before all else: as long as this thread cannot be stopped, the collection holds what it has
    // found.
    if (is_being_collected(owner)) {
      hold();
    }
    unmark_those_left_alone();
  }
#ifdef Py_GIL_DISABLED
  // Before anything else opens a critical section: CPython would take the lock of this one for held
  // (_PyCriticalSection_BeginSlow()), and resume this one when it closes the other.
  if ((tstate->critical_section & _Py_CRITICAL_SECTION_INACTIVE) != 0) {
    _PyCriticalSection_Resume(tstate);
  }
#endif
#if PY_VERSION_HEX >= 0x030f0000
  // CPython instruments the frames that threads run when events change, and those of generators
  // when they are resumed; it knows nothing of ours. (3.12 to 3.14 do not export what it takes;
  // there a frame follows with its next call.) Each code object is locked for that.
  if (monitoring_version_ != monitoring_version_of(tstate)) {
    for (_PyInterpreterFrame* frame = frame_; frame != nullptr; frame = frame->previous) {
      if (frame->owner < FRAME_OWNED_BY_INTERPRETER &&
          _Py_Instrument(_PyFrame_GetCode(frame), tstate->interp) < 0) {
        PyErr_Clear();  // no memory: these frames' events are lost, as they would be without us
      }
    }
  }
#endif
}

void suspend_critical_sections_slowly([[maybe_unused]] PyThreadState* tstate) noexcept {
#ifdef Py_GIL_DISABLED
  _PyCriticalSection_SuspendAll(tstate);
#endif
}

PyFrameObject* StackState::innermost_frame(PyThreadState* tstate) const noexcept {
  // CPython makes a frame object only for what a thread state runs, so let ours seem to run the
  // suspended frames for one call.
#if PY_VERSION_HEX >= 0x030d0000
  _PyInterpreterFrame* const running = std::exchange(tstate->current_frame, frame_);
  PyFrameObject* frame = PyThreadState_GetFrame(tstate);
  tstate->current_frame = running;
#else
  if (cframe_ == nullptr) {
    return nullptr;
  }
#if PY_VERSION_HEX < 0x030c0000
  // An allocation may start a collection here; it must not run Python code over these frames.
  const int collects = PyGC_Disable();
#endif
  _PyCFrame* const running = std::exchange(tstate->cframe, cframe_);
  PyFrameObject* frame = PyThreadState_GetFrame(tstate);
  tstate->cframe = running;
#if PY_VERSION_HEX < 0x030c0000
  if (collects) {
    PyGC_Enable();
  }
#endif
#endif
  return frame;
}

}  // namespace greenlet::cpython
