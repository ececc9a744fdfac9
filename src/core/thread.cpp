// A thread's world: how it comes to be, and what happens around a switch but rarely. How it ends is
// in ending.cpp.
#include "core/thread.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "cpython/errors.h"
#include "cpython/objects.h"
#include "cpython/thread_states.h"
#include "stack/trimmer.h"

namespace greenlet::core {
namespace {

constexpr const char* kCapsuleName = "greenlet._greenlet.Thread";

}  // namespace

constinit thread_local Thread::Remembered Thread::remembered_;
constinit thread_local Thread* Thread::ending_ = nullptr;
constinit thread_local Thread::Ended Thread::ended_;
constinit FreeList<Thread, &Thread::next_free_> Thread::free_;

void Thread::begin(PyThreadState* tstate, ModuleState* module, Greenlet& main) noexcept {
  tstate_ = tstate;
  anchors_ = cpython::ImplFields::of(tstate);
  module_ = module;
  module_object_ = Py_NewRef(module->object);
  pool_.join(module);
  main_ = &main;
  running_ = &main;
  Py_INCREF(main.object());  // as the main greenlet
  Py_INCREF(main.object());  // as the running one
  main.is_main_ = true;
  main.thread_ = this;
  main.state_ = State::kRunning;
  main.region_.boundary = static_cast<std::byte*>(__builtin_frame_address(0));
  ++module->main_greenlets;
  id_.store(cpython::id_of(tstate), std::memory_order_relaxed);
  key_.store(tstate, std::memory_order_relaxed);
}

void Thread::remember(Thread* thread) noexcept {
  if (thread->started_ != nullptr) {
    know_exceptions();  // another OS thread has started them
  }
  (remembered_.exceptions != nullptr ? remembered_.thread : remembered_.idle) = thread;
  if (thread->running_ == thread->main_) {
    cpython::correct_stack_limits(thread->tstate_, thread->anchors_);
  }
}

bool Thread::find_stack(cpython::StackBounds& found) noexcept {
  if (remembered_.exceptions == nullptr) {
    return false;  // there was no switch in this OS thread yet
  }
  const stack::Region region = stack::region_at(__builtin_frame_address(0));
  if (!region) {
    return false;
  }
  found = {.low = region.low, .high = region.boundary};
  return true;
}

Thread* Thread::current_or_null() noexcept {
  PyThreadState* const tstate = cpython::current_thread_state();
  if (tstate == nullptr) {
    return nullptr;
  }
  if (remembered_.thread != nullptr && remembered_.thread->is_of(tstate)) {
    return remembered_.thread;
  }
  return known_or_null(tstate);
}

Thread* Thread::known_or_null(PyThreadState* tstate) noexcept {
  if (remembered_.idle != nullptr && remembered_.idle->is_of(tstate)) {
    remember(remembered_.idle);
    return remembered_.idle;
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
  const cpython::ExceptionAside aside;
  Thread* const thread = find();
  if (thread == nullptr) {
    PyErr_Clear();
  }
  return thread;
}

Thread* Thread::find() noexcept {
  PyObject* const dict = PyThreadState_GetDict();
  const Ref name = Ref::take(dict != nullptr ? PyUnicode_FromString(kCapsuleName) : nullptr);
  PyObject* const capsule = name ? PyDict_GetItemWithError(dict, name.get()) : nullptr;
  if (capsule == nullptr) {
    return nullptr;
  }
  auto* const thread = static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  remember(thread);
  return thread;
}

Thread* Thread::attach() noexcept {
  if (Thread* const known = current_or_null()) {
    return known;
  }
  // Ends the process with a text if there is none.
  PyThreadState* const tstate = PyThreadState_Get();
  // A program may come with an exception set, which it wants to handle in a greenlet.
  const cpython::ExceptionAside aside;
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
  const Ref main = Greenlet::create(module->greenlet_type, module, nullptr);
  if (!main) {
    return nullptr;
  }
  // A finalizer may have made it: on 3.11 what was allocated since we looked may have collected. Or
  // there was no memory to look.
  if (Thread* const made = find(); made != nullptr || PyErr_Occurred() != nullptr) {
    return made;
  }
  Thread* thread = free_.take();
  if (thread == nullptr) {
    void* const memory = std::aligned_alloc(alignof(Thread), sizeof(Thread));  // never freed
    if (memory == nullptr) {
      PyErr_NoMemory();
      return nullptr;
    }
    thread = new (memory) Thread();
  }
  thread->begin(tstate, module, Greenlet::of(main.get()));
  Ref capsule = Ref::take(PyCapsule_New(thread, kCapsuleName, &end_from_capsule));
  if (!capsule) {
    thread->end(/*in_own_thread=*/true);
    ended_ = {};  // there may be memory the next time
    return nullptr;
  }
  // So that the dict goes when the thread does, and the capsule with it, not later and in another
  // thread. Nobody else is to find it, either (gc.get_objects()); collections do not miss it, as
  // the thread state's reference is one that they do not see.
  cpython::unbias(dict);
  cpython::unbias(capsule.get());
  if (PyDict_SetItemString(dict, kCapsuleName, capsule.get()) < 0) {
    capsule = {};  // ends it
    ended_ = {};
    return nullptr;
  }
  PyObject_GC_UnTrack(dict);  // may be tracked again by a later insertion, on 3.11 to 3.13
  const bool is_second = remembered_.thread != nullptr || remembered_.idle != nullptr;
  remember(thread);
  hook_end_of_run();
  if (is_second) {
    watch_exit(*module);
  }
  return thread;
}

void Thread::end_from_capsule(PyObject* capsule) noexcept {
  auto* const thread = static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  // After a fork, and at the end of the interpreter, another thread clears the thread states of
  // those that are gone.
  PyThreadState* const tstate = cpython::current_thread_state();
  thread->end(tstate != nullptr && thread->is_of(tstate));
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
  sweep_.forget(greenlet);
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

void Thread::read_ahead_of(const Greenlet& greenlet) noexcept {
  constexpr int kBatch = 16;
  const bool forward = greenlet.previous_ == last_visited_;
  const bool backward = greenlet.next_ == last_visited_;
  last_visited_ = &greenlet;
  if (forward == backward || --read_ahead_ > 0) {
    return;
  }
  read_ahead_ = kBatch;
  if (remembered_.thread == this && is_of(cpython::current_thread_state())) {
    note_event();  // the collection runs in the thread that owns it
  }
  const Greenlet* ahead = &greenlet;
  for (int i = 0; i < kBatch; ++i) {
    ahead = forward ? ahead->next_ : ahead->previous_;
    if (ahead == nullptr || ahead->state() != State::kSuspended) {
      return;
    }
    ahead->stack_state_.read_ahead();
  }
}

PyObject* Thread::arrive_slowly(PyObject* message) noexcept {
  if (running_->stack_state_.must_catch_up(tstate_)) {
    // Runs no Python code in this thread.
    running_->stack_state_.catch_up(tstate_, running_->object());
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
    finished.stack_state_.release_held();
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

std::size_t Thread::trim() noexcept {
  stack::Trimmer trimmer(stack::Trimmer::Counts::kYes);
  if (Thread* const thread = current_or_null()) {
    Sweep::trim_all(thread->started_, trimmer);
    thread->pool_.trim(trimmer);
  }
  trimmer.flush();
  stack::trim_reserve();
  return trimmer.given_back();
}

PyObject* Thread::getcurrent() noexcept {
  // What CPython tears down then has begun to go; switching still works, for finally blocks.
  if (cpython::is_finalizing()) {
    (void)PyThreadState_Get();  // as in attach()
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
