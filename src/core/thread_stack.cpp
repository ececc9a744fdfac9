// A call on the OS thread's own stack, for code that compares the stack pointer with the bounds of
// that: the JVM, R, V8 and others.
//
// The running greenlet keeps all that the interpreter knows of it: frames, context, exceptions.
// Only the stack pointer moves, to where the main greenlet of the thread has left it, and so the
// main greenlet must not run before the call has returned. Nor may any other: it could lead there.
// So no switch is made until the call returns. To end a greenlet takes a switch; those to be ended
// wait in the queue for greenlets that other threads have dropped.
#include "core/thread.h"
#include "cpython/require.h"
#include "platform/thread.h"

namespace greenlet::core {
namespace {

struct Call {
  PyObject* function;
  PyObject* const* args;
  std::size_t count;
  PyObject* names;

  PyObject* make() const noexcept { return PyObject_Vectorcall(function, args, count, names); }
  static void* make_at(void* call) noexcept { return static_cast<Call*>(call)->make(); }
};

// The stack of a greenlet of another thread state, which somebody has attached there.
PyObject* refuse_foreign_stack(PyObject* error) noexcept {
  PyErr_SetString(error,
                  "cannot call on the thread's own stack: this thread state runs on a stack that "
                  "is not its own, or its main greenlet was left on another stack");
  return nullptr;
}

}  // namespace

PyObject* Thread::call_on_thread_stack(PyObject* function, PyObject* const* args, std::size_t count,
                                       PyObject* names) noexcept {
  Call call{function, args, count, names};
  Thread* const thread = current_or_null();
  const auto* const here = static_cast<const std::byte*>(__builtin_frame_address(0));
  const stack::Region none;
  const stack::Region& own = thread != nullptr ? thread->running_->region_ : none;
  if (own && own.low <= here && here < own.boundary) {
    return thread->leave_region_for(&Call::make_at, &call);
  }
  if (platform::is_on_own_stack(here) || !stack::region_at(here)) {
    return call.make();  // it is the main greenlet that runs, or one that is in such a call
  }
  const ModuleState* const module = ModuleState::of_interpreter();
  return module == nullptr ? nullptr : refuse_foreign_stack(module->error);
}

PyObject* Thread::leave_region_for(void* (*function)(void*), void* argument) noexcept {
  cpython::require(!calls_on_thread_stack_,
                   "greenlet: an exception or a jump has left a call on the thread's stack");
  // If a thread state moves to another OS thread, its main greenlet's frames do not.
  if (main_->state() != State::kSuspended ||
      !platform::is_on_own_stack(main_->context_.stack_pointer())) {
    return refuse_foreign_stack(module_->error);
  }
  calls_on_thread_stack_ = true;
  // With somebody in the queue no switch takes the fast path, see can_resume(). If it is empty, the
  // running greenlet stands in it for that time. It does not count.
  const bool is_marked = pending_.load(std::memory_order_relaxed) == nullptr &&
                         hand_to_owner(*running_, Cause::kDropped);
  if (is_marked) {
    --module_->pending_greenlets;
  }
  void* result;
  {
    const cpython::BorrowedStack stack(tstate_, anchors_, main_->stack_state_);
    result = main_->context_.call_below(function, argument);
  }
  calls_on_thread_stack_ = false;
  if (is_marked) {
    ++module_->pending_greenlets;
    take_back(*running_);
  }
  finish_pending();  // what had to wait; keeps the exception that is set
  return static_cast<PyObject*>(result);
}

bool Thread::may_switch_slowly() noexcept {
  if (calls_on_thread_stack_) {
    PyErr_SetString(module_->error,
                    "cannot switch in a call on the thread's own stack: until it returns, all "
                    "other greenlets of the thread wait (greenlet.stacks.call_on_thread_stack)");
    return false;
  }
  finish_pending_slowly();
  return true;
}

}  // namespace greenlet::core
