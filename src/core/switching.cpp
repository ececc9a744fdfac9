// From "switch to that greenlet" to a stack that can be entered, and from a stack that has ended
// to the next one. The switch itself is in thread.h.
#include <cassert>

#include "core/thread.h"
#include "cpython/errors.h"
#include "cpython/locks.h"
#include "cpython/require.h"

namespace greenlet::core {
namespace {

// How often the search for the heir of a greenlet that ends passes by that greenlet itself, before
// the main greenlet inherits. To pass by it once takes a change of parents during the search.
constexpr int kMostReturns = 100;

}  // namespace

PyObject* Thread::deliver(Greenlet& target, Message message, const Operands& operands) noexcept {
  assert(!calls_on_thread_stack_);
  Ref receiver = Ref::share(target.object());
  PyObject* payload = nullptr;
  Greenlet* const to = prepare(receiver, message, payload);
  if (to == nullptr) {
    return nullptr;
  }
  // The reference goes to the thread. It may be the only one, for `target` may be dead and another
  // thread give it another parent at any moment.
  cpython::require(receiver.get() == to->object(), "greenlet: a switch lost hold of its target");
  receiver.release();
  if (to == running_) {
    origin_ = to;
    return receive(payload);
  }
  running_->stack_state_.set_operands(operands.begin, operands.end);
  know_exceptions();
  remembered_.thread = this;  // for run_greenlet(): preparations may have used another interpreter
  return arrive(switch_to(*to, payload, sweep_.state_when_left()));
}

Greenlet* Thread::prepare(Ref& target, Message& message, PyObject*& payload) noexcept {
  for (;;) {
    Greenlet* const to = aim(target, message);
    if (to == nullptr || !unpack(message, payload)) {
      return nullptr;
    }
    message = Message::value({});
    if (to == running_ || to->state() == State::kSuspended) {
      return to;
    }
    // 3.11 only: to make the payload took a collection, in which Python code ended the target.
    message = unpacked(payload);
  }
}

Message Thread::unpacked(PyObject* payload) noexcept {
  return payload != nullptr ? Message::value(Ref::take(payload))
                            : Message::raise(Ref::take(std::exchange(exception_, nullptr)));
}

bool Thread::unpack(Message& message, PyObject*& payload) noexcept {
  if (message.raises()) {
    exception_ = message.take_exception();
    payload = nullptr;
    return true;
  }
  payload = message.take_value();
  return payload != nullptr;
}

Greenlet* Thread::aim(Ref& target, Message& message) noexcept {
  for (;;) {
    Greenlet& greenlet = Greenlet::of(target.get());
    switch (greenlet.state()) {
      case State::kRunning:
      case State::kSuspended:
        if (const Thread* const owner = greenlet.thread(); owner != this) {
          if (owner == nullptr && greenlet.state() == State::kDead) {
            continue;  // in another thread, since the switch above
          }
          refuse_foreign(greenlet);
          return nullptr;
        }
        if (greenlet.raw_state() > State::kSuspended) [[unlikely]] {
          sweep_.note_marked(started_, *main_, pool_);
        }
        return &greenlet;

      case State::kNew: {
        if (!greenlet.is_child_of(*running_)) {
          // Dropped before the start, after which no Python code may run: it may be the only
          // reference left, if another thread changes parents.
          const Ref representative = greenlet.thread_representative();
          if (Greenlet::of(representative.get()).thread() != this) {
            refuse_foreign(Greenlet::of(representative.get()));
            return nullptr;
          }
        }
        switch (start(greenlet, message)) {
          case Started::kYes:
            return &greenlet;
          case Started::kNo:
            return nullptr;
          case Started::kMeanwhile:
            continue;
        }
        break;
      }

      case State::kDead:
      case State::kAbandoned: {
        message.settle_exit(module_->greenlet_exit);
        Ref parent = greenlet.parent();
        if (!parent) {
          refuse_foreign(greenlet);  // a main greenlet whose thread has ended
          return nullptr;
        }
        target = std::move(parent);
        break;
      }
    }
  }
}

Thread::Started Thread::start(Greenlet& greenlet, Message& message) noexcept {
  note_event();
  // What the attribute `run` is where no subclass can have another.
  Ref run = Py_TYPE(greenlet.object()) == module_->greenlet_type ? greenlet.run() : Ref();
  if (!run) {
    run = Ref::take(PyObject_GetAttr(greenlet.object(), module_->run_name));
  }
  if (!run) {
    return Started::kNo;
  }
  if (greenlet.state() != State::kNew) {
    return Started::kMeanwhile;  // looking up run has started it
  }
  stack::Failure failure{};
  stack::Region region;
  if (greenlet.wanted_stack_bytes() == 0) [[likely]] {
    region = pool_.acquire(failure);
  }
  if (!region) [[unlikely]] {
    region = find_region(greenlet);
    if (!region) {
      return Started::kNo;
    }
  }
  Arguments arguments;
  if (!message.raises()) {
    arguments = message.take_call(module_->empty_tuple);
  }
  for (Ref old;;) {
    old = {};  // a run that a subclass overrides, perhaps: dropping it may run code
    const cpython::ObjectLock lock(greenlet.object());
    if (greenlet.state() != State::kNew) {
      pool_.release(region);
      if (!message.raises()) {
        message.put_back(std::move(arguments));
      }
      return Started::kMeanwhile;
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
    greenlet.args_are_one_ = arguments.is_one;
    greenlet.region_ = region;
    greenlet.stack_state_.start(tstate_, anchors_, region.low, region.boundary,
                                region.data_bytes());
    greenlet.context_.prepare(region.low, region.boundary, &run_greenlet);
    link(greenlet);
    // Complete, so others may see it: to give up the lock may wait for them.
    greenlet.thread_.store(this, std::memory_order_release);
    greenlet.state_.store(State::kSuspended, std::memory_order_release);
    break;
  }
  if (!message.raises()) {
    message = Message::value(Ref::share(Py_None));  // only says that nothing is to be raised
  }
  return Started::kYes;
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
      const cpython::StoppedWorld still;  // other threads' pools are among them
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
  Thread& thread = *remembered_.thread;
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

  Ref heir = self.heir();
  PyObject* payload = result;
  if (result == nullptr || !heir || !can_resume(Greenlet::of(heir.get()))) {
    payload = find_heir(self, heir,
                        result != nullptr ? Message::value(Ref::take(result))
                                          : Message::raise(std::move(exception)));
    cpython::require(can_enter(Greenlet::of(heir.get())),
                     "greenlet: a greenlet that has ended has nobody to go on with");
  }
  // The reference goes to the thread.
  Greenlet& next = Greenlet::of(heir.release());
  unlink(self);
  self.stack_state_.finish_running(tstate_);
  // In this order, so that who finds no thread can tell that it is dead; see aim().
  self.state_.store(State::kDead, std::memory_order_release);
  self.thread_.store(nullptr, std::memory_order_release);
  attention_ |= kOriginFinished;
  enter(self, next);
  remembered_.thread = this;  // as above
  self.context_.leave_for(next.context_, remembered_.exceptions, payload);
}

PyObject* Thread::find_heir(Greenlet& self, Ref& target, Message message) noexcept {
  message.settle_exit(module_->greenlet_exit);
  int returns = 0;
  for (PyObject* payload = nullptr;;) {
    if (!target) {
      target = Ref::share(main_->object());
    }
    if (Greenlet* const to = prepare(target, message, payload); to == &self) {
      // Its parents were changed during the search (by another thread, or by Python code: the
      // lookup of a parent's `run`), and lead to the greenlet that ends. It cannot go on.
      message = unpacked(payload);
      message.settle_exit(module_->greenlet_exit);
      target = ++returns < kMostReturns ? self.heir() : Ref();
    } else if (to != nullptr) {
      return payload;
    } else {
      // It cannot be started, or belongs to another thread: its parent hears of that instead.
      message = Message::raise_current();
      target = Greenlet::of(target.get()).parent();
      // Unless the lookup of its `run` has switched away and kill() has ended that with a
      // GreenletExit: this one is for the killer, which waits for this greenlet's end.
      if (self.kills_ != nullptr && message.raises_any(module_->greenlet_exit)) {
        message.settle_exit(module_->greenlet_exit);
        target = self.heir();
      }
    }
  }
}

}  // namespace greenlet::core
