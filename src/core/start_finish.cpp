// The start of a greenlet, and the finish of its run: the stack, the arguments, and the greenlet
// that goes on next.
#include <utility>

#include "core/hints.h"
#include "core/thread.h"
#include "cpython/errors.h"
#include "cpython/locks.h"
#include "cpython/require.h"

namespace greenlet::core {
namespace {

// The search for the heir of a greenlet may come to that greenlet itself, if parents change during
// the search. After this many times the main greenlet becomes the heir.
constexpr int kMostReturns = 100;

}  // namespace

Thread::Start Thread::start(Greenlet& greenlet, Message& message) noexcept {
  note_event();
  // The value of the attribute `run`, if no subclass can define another.
  Ref run = Py_TYPE(greenlet.object()) == module_->greenlet_type ? greenlet.run() : Ref();
  if (!run) {
    run = Ref::take(PyObject_GetAttr(greenlet.object(), module_->run_name));
  }
  if (!run) {
    if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
      add_hint("nothing_to_run", greenlet.object());
    }
    return Start::kFailed;
  }
  if (greenlet.state() != State::kNew) {
    return Start::kAlreadyStarted;  // the lookup of run has started it
  }
  stack::Failure failure{};
  stack::Region region;
  if (greenlet.wanted_stack_bytes() == 0) [[likely]] {
    region = pool_.acquire(failure);
  }
  if (!region) [[unlikely]] {
    region = find_region(greenlet);
    if (!region) {
      return Start::kFailed;
    }
  }
  Arguments arguments;
  if (!message.raises()) {
    arguments = message.take_call(module_->empty_tuple);
  }
  for (Ref old;;) {
    old = {};  // perhaps a run that a subclass overrides; to drop it may run Python code
    const cpython::ObjectLock lock(greenlet.object());
    if (greenlet.state() != State::kNew) {
      pool_.release(region);
      if (!message.raises()) {
        message.put_back(std::move(arguments));
      }
      return Start::kAlreadyStarted;
    }
    if (greenlet.run_ == run.get()) {
      run = {};  // not the last reference
    } else if (greenlet.run_ != nullptr) {
      old = Ref::take(std::exchange(greenlet.run_, nullptr));
      continue;
    } else {
      greenlet.run_ = run.release();
    }
    greenlet.args_ = arguments.args.release();
    greenlet.kwargs_ = arguments.kwargs.release();
    greenlet.args_is_single_ = arguments.is_single;
    greenlet.region_ = region;
    greenlet.stack_state_.start(tstate_, impl_fields_, region.low, region.boundary,
                                region.data_bytes());
    greenlet.context_.prepare(region.low, region.boundary, &run_greenlet);
    started_.append(greenlet);
    // It is complete, so other threads may see it. (To release the lock may wait for them.)
    greenlet.thread_.store(this, std::memory_order_release);
    greenlet.state_.store(State::kSuspended, std::memory_order_release);
    break;
  }
  if (!message.raises()) {
    message = Message::value(Ref::share(Py_None));  // only says that nothing is to be raised
  }
  return Start::kStarted;
}

stack::Region Thread::find_region(const Greenlet& greenlet) noexcept {
  const std::size_t size = greenlet.wanted_stack_bytes();
  stack::Failure failure{};
  const auto acquire = [&] {
    return size != 0 ? pool_.acquire(size, failure) : pool_.acquire(failure);
  };
  stack::Region region = acquire();
  if (!region) {
    {
      const cpython::StoppedWorld stopped;  // empty_pools() changes pools of other threads
      stack::empty_pools(module_);
    }
    region = acquire();
  }
  if (!region) {
    PyErr_SetString(PyExc_MemoryError, stack::describe(failure));
  }
  return region;
}

void Thread::run_greenlet(void* message) noexcept {
  Thread& thread = *os_thread.thread;
  Greenlet& self = *thread.running_;
  PyObject* const go = thread.arrive(static_cast<PyObject*>(message));
  PyObject* result = nullptr;
  if (go != nullptr) {
    Py_DECREF(go);
    result = self.call_run();
  }
  thread.finish(self, result);
}

void Thread::finish(Greenlet& self, PyObject* result) noexcept {
  Ref exception = Ref::take(result != nullptr ? nullptr : cpython::take_exception());
  {
    const Ref run = Ref::take(std::exchange(self.run_, nullptr));
    const Ref args = Ref::take(std::exchange(self.args_, nullptr));
    const Ref kwargs = Ref::take(std::exchange(self.kwargs_, nullptr));
  }
  cpython::StackState::clear_handled_exception(tstate_);
  cpython::StackState::finish_deallocations(tstate_);

  Ref heir = self.heir();
  PyObject* payload = result;
  if (result == nullptr || !heir || !can_resume(Greenlet::of(heir.get()))) {
    payload = find_heir(self, heir,
                        result != nullptr ? Message::value(Ref::take(result))
                                          : Message::exception(std::move(exception)));
    cpython::require(can_enter(Greenlet::of(heir.get())),
                     "greenlet: a greenlet has finished and no other greenlet can go on");
  }
  // The reference goes to the thread.
  Greenlet& next = Greenlet::of(heir.release());
  sweep_.forget(self);
  started_.remove(self);
  self.stack_state_.finish_running(tstate_);
  // In this order: find_receiver() may see a thread that is null already, and then expects kDead.
  self.state_.store(State::kDead, std::memory_order_release);
  self.thread_.store(nullptr, std::memory_order_release);
  attention_ |= kOriginFinished;
  enter(self, next);
  os_thread.thread = this;  // as in deliver()
  self.context_.leave_for(next.context_, os_thread.exceptions, payload);
}

PyObject* Thread::find_heir(Greenlet& self, Ref& target, Message message) noexcept {
  self.is_finishing_.store(true, std::memory_order_relaxed);
  message.exit_to_value(module_->greenlet_exit);
  int returns = 0;
  for (PyObject* payload = nullptr;;) {
    if (!target) {
      target = Ref::share(main_->object());
    }
    if (Greenlet* const to = prepare(target, message, payload); to == &self) {
      // Parents were changed during the search, by another thread or by Python code (the lookup of
      // a parent's `run`). They lead to the greenlet that finishes, which cannot go on.
      message = from_payload(payload);
      message.exit_to_value(module_->greenlet_exit);
      target = ++returns < kMostReturns ? self.heir() : Ref();
    } else if (to != nullptr) {
      return payload;
    } else {
      // `target` cannot be started, or belongs to another thread. Its parent receives the error.
      message = Message::from_current_exception();
      target = Greenlet::of(target.get()).parent();
      // But if the lookup of its `run` has switched away, kill() may have raised a GreenletExit in
      // the lookup. The killer waits for `self` to finish, so it is the heir.
      if (self.is_being_killed() && message.raises_any(module_->greenlet_exit)) {
        message.exit_to_value(module_->greenlet_exit);
        target = self.heir();
      }
    }
  }
}

}  // namespace greenlet::core
