// A thread's world: how it comes to be, how it ends, and what happens around a switch but rarely.
#include "core/thread.h"

#include <cassert>
#include <memory>
#include <new>
#include <optional>

#include "cpython/objects.h"

namespace greenlet::core {
namespace {

constexpr const char* kCapsuleName = "greenlet._greenlet.Thread";
constexpr const char* kKilledText = "Killing the greenlet because all references have vanished.";
// How often a thread that ends raises GreenletExit in a greenlet that goes on. One may have to let
// it pass, as where it was in the middle of dropping another greenlet, whose finally block switched:
// what is raised in a destructor goes no further.
constexpr std::uint8_t kEndTries = 10;

}  // namespace

constinit thread_local Thread* Thread::current_thread_ = nullptr;
constinit thread_local context::ExceptionGlobals* Thread::exception_globals_ = nullptr;
constinit thread_local Thread* Thread::ending_ = nullptr;
constinit thread_local Thread::Ended Thread::ended_;
constinit std::atomic<Thread*> Thread::free_{nullptr};

Thread* Thread::allocate() noexcept {
  // Without a lock, which fork() could leave held (another interpreter's threads do not wait for
  // the one that forks). Takes the whole list, so that nobody can change what it looks at.
  Thread* const first = free_.exchange(nullptr, std::memory_order_acquire);
  if (first == nullptr) {
    return new (std::nothrow) Thread();
  }
  for (Thread* rest = std::exchange(first->next_free_, nullptr); rest != nullptr;) {
    Thread* const next = rest->next_free_;
    rest->release();
    rest = next;
  }
  return first;
}

void Thread::release() noexcept {
  next_free_ = free_.load(std::memory_order_relaxed);
  while (!free_.compare_exchange_weak(next_free_, this, std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
}

void Thread::begin(PyThreadState* tstate, ModuleState* module, Greenlet& main) noexcept {
  tstate_ = tstate;
  anchors_ = cpython::ThreadAnchors::of(tstate);
  module_ = module;
  module_object_ = Py_NewRef(PyType_GetModule(module->greenlet_type));
  main_ = &main;
  running_ = &main;
  Py_INCREF(main.object());  // as the main greenlet
  Py_INCREF(main.object());  // as the running one
  main.is_main_ = true;
  main.thread_ = this;
  main.state_ = State::kRunning;
  main.region_.boundary = static_cast<std::byte*>(__builtin_frame_address(0));
  ++module->main_greenlets;
  key_.store(tstate, std::memory_order_relaxed);
}

void Thread::remember(Thread* thread) noexcept {
  current_thread_ = thread;
  exception_globals_ = context::thread_exception_globals();
}

bool Thread::has_ended(PyThreadState* tstate) noexcept {
  if (ended_.tstate_id != PyThreadState_GetID(tstate) ||
      ended_.interpreter_id != PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate))) {
    return false;
  }
  const ModuleState* const module = ModuleState::of_interpreter_or_null();
  return module == nullptr || module->serial == ended_.module_serial;
}

Thread* Thread::current_or_null() noexcept {
  PyThreadState* const tstate = cpython::current_thread_state();
  if (tstate == nullptr) {
    return nullptr;
  }
  if (current_thread_ != nullptr && current_thread_->is_of(tstate)) {
    return current_thread_;
  }
  // The OS thread has changed its thread state: PyGILState_Ensure() in a thread that Python did not
  // make, or another interpreter.
  if (ending_ != nullptr && ending_->is_of(tstate)) {
    remember(ending_);
    return ending_;
  }
  if (has_ended(tstate)) {
    return nullptr;  // and no dict is to be made for it again
  }
  PyObject* const dict = PyThreadState_GetDict();
  PyObject* const capsule = dict ? PyDict_GetItemString(dict, kCapsuleName) : nullptr;
  if (capsule == nullptr) {
    return nullptr;
  }
  remember(static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName)));
  return current_thread_;
}

Thread* Thread::attach() noexcept {
  if (Thread* const known = current_or_null()) {
    return known;
  }
  PyThreadState* const tstate = cpython::current_thread_state();
  if (!cpython::can_run_python(tstate)) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is being finalized");
    return nullptr;
  }
  if (has_ended(tstate)) {
    PyErr_SetString(PyExc_RuntimeError, "greenlets cannot be used any more: the thread is ending");
    return nullptr;
  }
  ModuleState* const module = ModuleState::of_interpreter();
  if (module == nullptr) {
    return nullptr;
  }
  PyObject* const dict = PyThreadState_GetDict();
  if (dict == nullptr) {
    PyErr_NoMemory();
    return nullptr;
  }
  PyTypeObject* const type = module->greenlet_type;
  const Ref main = Ref::take(type->tp_alloc(type, 0));
  if (!main || !Greenlet::create(reinterpret_cast<Object*>(main.get()), module, nullptr)) {
    return nullptr;
  }
  Thread* const thread = allocate();
  if (thread == nullptr) {
    PyErr_NoMemory();
    return nullptr;
  }
  thread->begin(tstate, module, Greenlet::of(main.get()));
  Ref capsule = Ref::take(PyCapsule_New(thread, kCapsuleName, &end_from_capsule));
  if (!capsule) {
    thread->end(/*in_own_thread=*/true);
    ended_ = {};  // there may be memory the next time
    return nullptr;
  }
  if (PyDict_SetItemString(dict, kCapsuleName, capsule.get()) < 0) {
    capsule = {};  // ends it
    ended_ = {};
    return nullptr;
  }
  remember(thread);
  return thread;
}

void Thread::end_from_capsule(PyObject* capsule) noexcept {
  auto* const thread = static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  // After a fork, and at the end of the interpreter, another thread clears the thread states of
  // those that are gone.
  thread->end(cpython::current_thread_state() == thread->tstate_);
}

void Thread::end(bool in_own_thread) noexcept {
  Thread* const outer = std::exchange(ending_, this);  // its finally blocks may end other worlds
  if (in_own_thread) {
    remember(this);  // what runs now must not attach anew
    if (running_ != main_) {
      give_back_thread_state();
    } else if (cpython::can_run_python(tstate_)) {
      finish_pending_slowly();
      for (Ref held; (held = hold_those_to_end()) && PyList_GET_SIZE(held.get()) > 0;) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(held.get()); ++i) {
          Greenlet& greenlet = Greenlet::of(PyList_GET_ITEM(held.get(), i));
          ++greenlet.end_tries_;
          kill(greenlet);
        }
      }
    }
  }
  abandon_all(in_own_thread);
  ending_ = outer;
  key_.store(reinterpret_cast<PyThreadState*>(this), std::memory_order_relaxed);
  if (in_own_thread) {
    current_thread_ = nullptr;
    ended_ = {.tstate_id = PyThreadState_GetID(tstate_),
              .interpreter_id = PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate_)),
              .module_serial = module_->serial};
  }
  --module_->main_greenlets;
  const Ref tracer = exchange_tracer({});
  const Ref module = Ref::take(std::exchange(module_object_, nullptr));
  const Ref main = Ref::take(std::exchange(main_, nullptr)->object());
  const Ref running = Ref::take(std::exchange(running_, nullptr)->object());
  started_ = nullptr;
  attention_ = 0;
  std::destroy_at(&pool_);
  std::construct_at(&pool_);
  release();
}

// The thread state goes while a greenlet runs: Py_Finalize() called there. CPython will free the
// thread state's data stack, which must not be the one in our region, and may clear what else it
// has; so it gets the main greenlet's share again, except for the bounds of the C stack, which is
// still the running one's.
void Thread::give_back_thread_state() noexcept {
  cpython::StackLimits limits;
  if (anchors_.stack_limits != nullptr) {
    limits = *anchors_.stack_limits;
  }
  running_->interpreter_.save(tstate_, anchors_);
  main_->interpreter_.restore(tstate_, anchors_);
  if (anchors_.stack_limits != nullptr) {
    *anchors_.stack_limits = limits;
  }
}

// The list of started greenlets owns no reference to them, and another thread may drop the last one
// at this moment: it then deallocates the greenlet, or rather hands it to us. With the world
// stopped it has not begun, or has done that; or the greenlet waits for its deallocation with all
// that it hangs on (CPython's trashcan), and is out of reach.
Ref Thread::hold_those_to_end() noexcept {
  const auto is_to_end = [](const Greenlet& greenlet) {
    return greenlet.end_tries_ < kEndTries && !greenlet.is_frozen();
  };
  Py_ssize_t count = 0;
  for (Greenlet* greenlet = started_; greenlet != nullptr; greenlet = greenlet->next_) {
    count += is_to_end(*greenlet) ? 1 : 0;
  }
  if (count == 0) {
    return {};
  }
  Ref held = Ref::take(PyList_New(count));
  if (!held) {
    PyErr_Clear();
    return {};
  }
  const cpython::StoppedWorld still;
  count = 0;
  for (Greenlet* greenlet = started_; greenlet != nullptr; greenlet = greenlet->next_) {
    if (is_to_end(*greenlet) && !cpython::is_being_deallocated(greenlet->object())) {
      PyList_SET_ITEM(held.get(), count++, Py_NewRef(greenlet->object()));
    }
  }
  Py_SET_SIZE(held.get(), count);
  return held;
}

void Thread::abandon_all(bool in_own_thread) noexcept {
  Greenlet* greenlet = nullptr;
  {
    std::optional<cpython::StoppedWorld> still;
    if (in_own_thread && started_ != nullptr) {
      still.emplace();  // see above; where another thread ends us, there is no third
    }
    const std::lock_guard lock(module_->owners);
    // The main greenlet's stack goes with the thread, and may be gone (daemon threads). Of the one
    // that runs we know nothing that is up to date.
    main_->interpreter_.finish();
    running_->interpreter_.finish();
    main_->thread_ = nullptr;
    main_->state_ = State::kAbandoned;
    // The frames of the others cannot be unwound any more and own what they hold for ever, and
    // someone may have frame objects that point there: neither the stacks nor the greenlets can be
    // freed.
    for (greenlet = started_; greenlet != nullptr; greenlet = greenlet->next_) {
      greenlet->thread_ = nullptr;
      greenlet->state_ = State::kAbandoned;
      greenlet->interpreter_.abandon(anchors_);
      if (!cpython::is_being_deallocated(greenlet->object())) {
        greenlet->keep();
      }
    }
    greenlet = pending_.exchange(nullptr);
  }
  while (greenlet != nullptr) {
    Greenlet* const next = greenlet->next_pending_;
    --module_->pending_greenlets;
    const Ref dropped = Ref::take(greenlet->object());
    greenlet = next;
  }
}

void Thread::link(Greenlet& greenlet) noexcept {
  // Behind the others, so that end() meets the oldest first, as their scopes were entered.
  greenlet.next_ = nullptr;
  if (started_ == nullptr) {
    started_ = greenlet.previous_ = &greenlet;  // the first one's previous is the last
    return;
  }
  Greenlet* const last = started_->previous_;
  last->next_ = &greenlet;
  greenlet.previous_ = last;
  started_->previous_ = &greenlet;
}

void Thread::unlink(Greenlet& greenlet) noexcept {
  Greenlet* const next = greenlet.next_;
  Greenlet* const previous = greenlet.previous_;
  if (started_ == &greenlet) {
    started_ = next;
  } else {
    previous->next_ = next;
  }
  if (next != nullptr) {
    next->previous_ = previous;
  } else if (started_ != nullptr) {
    started_->previous_ = previous;
  }
  greenlet.next_ = greenlet.previous_ = nullptr;
}

void Thread::read_ahead_of(const Greenlet& greenlet) const noexcept {
  constexpr int kBatch = 16;
  const bool forward = greenlet.previous_ == last_visited_;
  const bool backward = greenlet.next_ == last_visited_;
  last_visited_ = &greenlet;
  if (forward == backward || --read_ahead_ > 0) {
    return;
  }
  read_ahead_ = kBatch;
  const Greenlet* ahead = &greenlet;
  for (int i = 0; i < kBatch; ++i) {
    ahead = forward ? ahead->next_ : ahead->previous_;
    if (ahead == nullptr || ahead->state() != State::kSuspended) {
      return;
    }
    ahead->interpreter_.read_ahead();
  }
}

PyObject* Thread::arrive_slowly(PyObject* message) noexcept {
  if (running_->interpreter_.needs_care(tstate_)) {
    running_->interpreter_.care(tstate_);  // runs no Python code in this thread
  }
  return receive(message);
}

PyObject* Thread::receive(PyObject* message) noexcept {
  // What follows can run Python code that switches, so take what the switch left for us first.
  Ref origin = Ref::take(origin_->object());
  Ref exception;
  if (message == nullptr) {
    exception = Ref::take(std::exchange(exception_, nullptr));
  }
  if (attention_ & kOriginFinished) {
    attention_ &= ~kOriginFinished;
    Greenlet& finished = Greenlet::of(origin.get());
    finished.context_.retire();
    pool_.release(std::exchange(finished.region_, {}));
    if (std::exchange(finished.kept_, false)) {
      Py_DECREF(origin.get());  // the thread's reference; ours is still there
    }
  }
  if (tracer_ != nullptr &&
      !trace(message != nullptr ? "switch" : "throw", Greenlet::of(origin.get()))) {
    Py_XDECREF(message);
    return nullptr;
  }
  if (message == nullptr) {
    origin = {};  // may run Python code, which must not see the exception
    cpython::raise_exception(exception.release());
  }
  return message;
}

bool Thread::trace(const char* event, Greenlet& origin) noexcept {
  const Ref tracer = Ref::share(tracer_);
  const Ref result = Ref::take(
      PyObject_CallFunction(tracer.get(), "s(OO)", event, origin.object(), running_->object()));
  if (!result) {
    const Ref exception = Ref::take(cpython::take_exception());
    exchange_tracer({});
    cpython::raise_exception(Py_NewRef(exception.get()));
  }
  return static_cast<bool>(result);
}

Ref Thread::exchange_tracer(Ref tracer) noexcept {
  attention_ = tracer ? attention_ | kTraced : attention_ & ~unsigned{kTraced};
  return Ref::take(std::exchange(tracer_, tracer.release()));
}

PyObject* Thread::getcurrent() noexcept {
  // What CPython tears down then has begun to go; switching still works, for finally blocks.
  if (cpython::is_finalizing()) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is being finalized");
    return nullptr;
  }
  Thread* const thread = current();
  if (thread == nullptr) {
    return nullptr;
  }
  thread->finish_pending();
  return Py_NewRef(thread->running_->object());
}

void Thread::kill(Greenlet& greenlet) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  Ref pending = Ref::take(cpython::take_exception());
  const Ref killer = Ref::share(running_->object());
  Ref parent = Ref::share(killer.get());  // then its own; the killer cannot descend from it
  greenlet.exchange_parent(parent);
  PyErr_SetString(module_->greenlet_exit, kKilledText);
  const Ref received = Ref::take(deliver(greenlet, Message::raise_current()));
  if (!received) {
    PyErr_WriteUnraisable(greenlet.object());
  }
  // Back to its own parent, unless it has chosen another meanwhile, or made that one its child.
  if (parent && greenlet.parent().get() == killer.get()) {
    greenlet.exchange_parent(parent);
  }
  parent = {};
  if (pending) {
    cpython::raise_exception(pending.release());
  }
}

void Thread::hand_to_owner(Greenlet& greenlet, bool collected) noexcept {
  const std::lock_guard lock(greenlet.module_->owners);
  Thread* const owner = greenlet.thread();
  if (owner == nullptr || greenlet.is_pending_) {
    return;
  }
  greenlet.is_pending_ = true;
  greenlet.collected_ = collected;
  Py_INCREF(greenlet.object());
  greenlet.next_pending_ = owner->pending_.load(std::memory_order_relaxed);
  owner->pending_.store(&greenlet, std::memory_order_release);
  ++greenlet.module_->pending_greenlets;
}

void Thread::finish_pending_slowly() noexcept {
  for (;;) {
    Ref dropped;
    bool collected;
    {
      const std::lock_guard lock(module_->owners);
      Greenlet* const first = pending_.load(std::memory_order_relaxed);
      if (first == nullptr) {
        return;
      }
      pending_.store(std::exchange(first->next_pending_, nullptr), std::memory_order_relaxed);
      first->is_pending_ = false;
      collected = first->collected_;
      --module_->pending_greenlets;
      dropped = Ref::take(first->object());
    }
    // If this is the last reference, dropping it here does the rest; else it lives on. What handed
    // it to us may have been its finalizer.
    if (Py_TYPE(dropped.get())->tp_finalize == module_->greenlet_type->tp_finalize) {
      cpython::allow_finalizer_again(dropped.get());
    }
    // Not so if it is in a cycle. The collection that found it may still be under way, and would
    // clear it once our reference is gone; to be dead before is all that helps.
    if (Greenlet& greenlet = Greenlet::of(dropped.get()); collected && !greenlet.is_frozen()) {
      kill(greenlet);
    }
  }
}

void Thread::refuse_foreign(const Greenlet& representative) noexcept {
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
}

}  // namespace greenlet::core
