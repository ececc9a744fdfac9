// The slow half of a switch: finding the greenlet that receives a message, and what a greenlet does
// when it arrives. The fast half is in thread.h.
#include <cassert>
#include <mutex>
#include <utility>

#include "core/freezing.h"
#include "core/hints.h"
#include "core/thread.h"
#include "cpython/errors.h"
#include "cpython/require.h"

namespace greenlet::core {

PyObject* Thread::deliver(Greenlet& target, Message message, const Operands& operands) noexcept {
  assert(!is_on_thread_stack_);
  Ref receiver = Ref::share(target.object());
  PyObject* payload = nullptr;
  Greenlet* const to = prepare(receiver, message, payload);
  if (to == nullptr) {
    return nullptr;
  }
  // The reference goes to the thread. It may be the only one: `target` may be dead, and another
  // thread may change its parent at any moment.
  cpython::require(receiver.get() == to->object(), "greenlet: a switch lost hold of its target");
  receiver.release();
  if (to == running_) {
    origin_ = to;
    return receive(payload);
  }
  running_->stack_state_.set_operands(operands);
  os_thread.find_exceptions();
  // For run_greenlet(): the preparations may have used another interpreter.
  os_thread.thread = this;
  return arrive(switch_to(*to, payload, sweep_.state_when_left()));
}

Greenlet* Thread::prepare(Ref& target, Message& message, PyObject*& payload) noexcept {
  for (;;) {
    Greenlet* const to = find_receiver(target, message);
    if (to == nullptr || !to_payload(message, payload)) {
      return nullptr;
    }
    message = Message::value({});
    if (to == running_ || to->is_in_place()) {
      return to;
    }
    // Only on 3.11: a collection has begun while the payload was made, and Python code in it has
    // made the target finish, or has made it go on and wait again.
    message = from_payload(payload);
  }
}

Message Thread::from_payload(PyObject* payload) noexcept {
  return payload != nullptr ? Message::value(Ref::take(payload))
                            : Message::exception(Ref::take(std::exchange(exception_, nullptr)));
}

bool Thread::to_payload(Message& message, PyObject*& payload) noexcept {
  if (message.raises()) {
    exception_ = message.take_exception();
    payload = nullptr;
    return true;
  }
  payload = message.take_value();
  return payload != nullptr;
}

Greenlet* Thread::find_receiver(Ref& target, Message& message) noexcept {
  for (;;) {
    Greenlet& greenlet = Greenlet::of(target.get());
    switch (greenlet.state()) {
      case State::kRunning:
      case State::kSuspended:
        if (const Thread* const owner = greenlet.thread(); owner != this) {
          if (owner == nullptr && greenlet.state() == State::kDead) {
            continue;  // another thread has finished it since the look at its state
          }
          raise_wrong_thread(greenlet);
          return nullptr;
        }
        return greenlet.raw_state() <= State::kSuspended || wake(greenlet) ? &greenlet : nullptr;

      case State::kNew: {
        if (!greenlet.is_child_of(*running_)) {
          // This reference is dropped before the start. It may be the last one, if another thread
          // changes parents, and no Python code may run after the start.
          const Ref representative = greenlet.thread_representative();
          if (Greenlet::of(representative.get()).thread() != this) {
            raise_wrong_thread(Greenlet::of(representative.get()), greenlet.object());
            return nullptr;
          }
        }
        switch (start(greenlet, message)) {
          case Start::kStarted:
            return &greenlet;
          case Start::kFailed:
            return nullptr;
          case Start::kAlreadyStarted:
            continue;
        }
        break;
      }

      case State::kDead:
      case State::kAbandoned: {
        message.exit_to_value(module_->greenlet_exit);
        Ref parent = greenlet.parent();
        if (!parent) {
          raise_wrong_thread(greenlet);  // a main greenlet whose thread has ended
          return nullptr;
        }
        target = std::move(parent);
        break;
      }
    }
  }
}

bool Thread::wake(Greenlet& greenlet) noexcept {
  sweep_.note_marked(started_, *main_, pool_);
  if (greenlet.is_frozen()) {
    if (!Freezer::thaw(greenlet)) {
      return false;
    }
    sweep_.note_thaw();
  }
  return true;
}

PyObject* Thread::arrive_slowly(PyObject* message) noexcept {
  if (running_->stack_state_.must_catch_up(tstate_)) {
    // Runs no Python code in this thread.
    running_->stack_state_.catch_up(tstate_, running_->object());
  }
  return receive(message);
}

void Thread::let_go_of_remaining(Greenlet& finished) noexcept {
  if ((finished.remaining_ & Greenlet::kKeepsFrozen) != 0) {
    Freezer::release(finished);
  }
  if (std::exchange(finished.remaining_, std::uint8_t{0}) != 0) {
    Py_DECREF(finished.object());  // the thread's reference; its caller has another one
  }
}

PyObject* Thread::receive(PyObject* message) noexcept {
  // What follows can run Python code that switches. So take first what the switch has left here.
  Ref origin = Ref::take(origin_->object());
  Ref exception;
  if (message == nullptr) {
    exception = Ref::take(std::exchange(exception_, nullptr));
  }
  if (has_attention(kOriginFinished)) {
    set_attention(kOriginFinished, false);
    Greenlet& finished = Greenlet::of(origin.get());
    finished.context_.retire();
    pool_.release(std::exchange(finished.region_, {}));
    finished.stack_state_.release_held();
    if (finished.remaining_ != 0) [[unlikely]] {
      let_go_of_remaining(finished);
    }
  }
  if (attention_ != 0 && !tell_of_switch(Greenlet::of(origin.get()), message == nullptr))
      [[unlikely]] {
    Py_XDECREF(message);
    return nullptr;
  }
  if (message == nullptr) {
    origin = {};  // may run Python code, which must not see the exception
    cpython::raise_exception(exception.release());
  }
  return message;
}

bool Thread::tell_of_switch(Greenlet& origin, bool is_throw) noexcept {
  set_attention(kWatched, false);
  if (has_attention(kFreezes)) {
    Freezer(Freezer::When::kIdle).freeze(origin);
  }
  if (const SwitchHook hook = module_->hook; has_attention(kHooked) && hook.function != nullptr) {
    hook.function((is_throw ? SwitchHook::kThrow : 0) |
                      (origin.state() == State::kDead ? SwitchHook::kOriginFinished : 0),
                  origin.object(), running_->object(), hook.data);
  }
  const bool is_own = tracer_.callback() != nullptr;
  const Ref callback = Ref::share(is_own                        ? tracer_.callback()
                                  : has_attention(kTracedInAll) ? module_->tracer
                                                                : nullptr);
  if (!callback || call_tracer(callback.get(), is_throw, origin, *running_)) {
    return true;
  }
  Ref raised = Ref::take(cpython::take_exception());
  if (is_own) {
    exchange_tracer({});
  } else if (module_->tracer == callback.get()) {  // unless it has set another one
    set_attention(kTracedInAll, false);
  }
  cpython::raise_exception(raised.release());
  return false;
}

void Thread::raise_wrong_thread(const Greenlet& representative, PyObject* unstarted) noexcept {
  Ref expected;
  {
    const std::lock_guard lock(module_->owners);
    if (const Thread* const owner = representative.thread()) {
      expected = Ref::share(owner->main_->object());
    }
  }
  if (expected) {
    PyErr_Format(module_->error,
                 "Cannot switch to a different thread\n\tCurrent:  %R\n\tExpected: %R",
                 main_->object(), expected.get());
  } else {
    PyErr_SetString(module_->error,
                    "cannot switch to a different thread (which happens to have exited)");
  }
  add_hint("wrong_thread", representative.object(), unstarted);
}

}  // namespace greenlet::core
