// The call on the thread's own stack.
//
// The interpreter keeps all that it knows of the running greenlet: frames, context, exceptions.
// Only the stack pointer moves, to the place where the main greenlet of the thread has left that
// stack. So the main greenlet must not run before the call has returned. No other greenlet may run
// either, because it could switch to the main greenlet. So there is no switch until the call
// returns. Killing a greenlet takes a switch, so greenlets to be killed wait in the DroppedQueue.
#include "core/thread_stack.h"

#include "core/killing.h"
#include "core/thread_registry.h"
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

// The stack belongs to a greenlet of another thread state, which C code has attached there.
PyObject* raise_wrong_stack(PyObject* error) noexcept {
  PyErr_SetString(error,
                  "cannot call on the thread's own stack: this thread state runs on a stack that "
                  "is not its own, or its main greenlet was left on another stack");
  return nullptr;
}

// The call from the running greenlet's own stack.
PyObject* call_below_main(Thread& thread, Call& call) noexcept {
  cpython::require(!thread.is_on_thread_stack(),
                   "greenlet: an exception or a jump has left a call on the thread's stack");
  Greenlet& main = thread.main();
  // If a thread state moves to another OS thread, its main greenlet's frames do not.
  if (main.state() != State::kSuspended ||
      !platform::is_on_own_stack(main.context().stack_pointer())) {
    return raise_wrong_stack(thread.module().error);
  }
  thread.set_on_thread_stack(true);
  // During the call no switch may take the fast path. None does while the queue is not empty: see
  // Thread::can_resume(). So if the queue is empty, the running greenlet is put into it as a
  // marker, until the call returns. queued_greenlets does not count the marker.
  const bool is_marker = thread.dropped().is_empty() &&
                         DroppedQueue::hand_over(thread.running(), /*by_collector=*/false);
  if (is_marker) {
    --thread.module().queued_greenlets;
  }
  void* result;
  {
    const cpython::BorrowedStack stack(thread.tstate(), thread.impl_fields(), main.stack_state());
    result = main.context().call_below(&Call::make_at, &call);
  }
  thread.set_on_thread_stack(false);
  if (is_marker) {
    ++thread.module().queued_greenlets;
    thread.dropped().remove(thread.running());
  }
  kill_dropped(thread);  // those that had to wait; keeps the exception that is set
  return static_cast<PyObject*>(result);
}

}  // namespace

PyObject* call_on_thread_stack(PyObject* function, PyObject* const* args, std::size_t count,
                               PyObject* names) noexcept {
  Call call{function, args, count, names};
  Thread* const thread = ThreadRegistry::current_or_null();
  const auto* const here = static_cast<const std::byte*>(__builtin_frame_address(0));
  const stack::Region none;
  const stack::Region& own = thread != nullptr ? thread->running().region() : none;
  if (own && own.low <= here && here < own.boundary) {
    return call_below_main(*thread, call);
  }
  if (platform::is_on_own_stack(here) || !stack::region_at(here)) {
    return call.make();  // the main greenlet runs, or a greenlet that is in such a call
  }
  const ModuleState* const module = ModuleState::of_interpreter();
  return module == nullptr ? nullptr : raise_wrong_stack(module->error);
}

bool prepare_to_switch_slowly(Thread& thread) noexcept {
  if (thread.is_on_thread_stack()) {
    PyErr_SetString(thread.module().error,
                    "cannot switch in a call on the thread's own stack: until it returns, all "
                    "other greenlets of the thread wait (greenlet.stacks.call_on_thread_stack)");
    return false;
  }
  kill_dropped_slowly(thread);
  return true;
}

}  // namespace greenlet::core
