// How greenlets end that do not end by themselves: dropped, here or in another thread, and left
// behind by a thread that ends, with that thread's world.
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "core/thread.h"
#include "cpython/loops.h"
#include "cpython/objects.h"

namespace greenlet::core {
namespace {

constexpr const char* kKilledText = "Killing the greenlet because all references have vanished.";
// How often a thread that ends raises GreenletExit in a greenlet that goes on. One may have to let
// it pass, as where it was in the middle of dropping another greenlet, whose finally block
// switched: what is raised in a destructor goes no further.
constexpr std::uint8_t kEndTries = 10;
// How often it looks for greenlets that were started meanwhile.
constexpr int kEndRounds = 100;

// In the dict of a GreenletExit that tells when it is let go of: a capsule with a Killing.
constexpr const char* kKillingName = "greenlet._greenlet.Killing";

}  // namespace

// An attempt to end a greenlet that only we ask for, by an exception that leads here. It is shared
// by the one who waits for the outcome and the exception, which may go anywhere.
class Thread::Killing {
 public:
  // Null without an exception if there is no memory.
  static Killing* begin(PyObject* exit, Greenlet& victim, Greenlet& killer) noexcept {
    void* const memory = PyMem_RawMalloc(sizeof(Killing));
    const Ref name = Ref::take(PyUnicode_FromString(kKillingName));
    if (memory == nullptr || !name) {
      PyMem_RawFree(memory);
      PyErr_Clear();
      return nullptr;
    }
    auto* const killing = new (memory) Killing(victim, killer);
    const Ref capsule = Ref::take(PyCapsule_New(killing, kKillingName, &exit_is_let_go));
    if (!capsule || PyObject_SetAttr(exit, name.get(), capsule.get()) < 0) {
      PyErr_Clear();
      if (!capsule) {
        killing->release();
      }
      killing->end();
      return nullptr;
    }
    return killing;
  }
  // By the one who waits, when it has the outcome.
  void end() noexcept {
    over_.store(true, std::memory_order_relaxed);
    release();
  }
  // For an exception that its victim cannot but swallow, and may be raised again later.
  static void forgive(PyObject* exception) noexcept {
    if (const Ref capsule = capsule_of(exception)) {
      of(capsule.get())->over_.store(true, std::memory_order_relaxed);
    }
  }
  // Somebody wants the text of the exception. A victim that handles it, and is about to let go of
  // it and go on, would report what concerns nobody, and is left before it has. False with an
  // exception set if it is resumed to raise one.
  static bool text_is_read(PyObject* text) noexcept {
    const Ref exit = Ref::take(PyErr_GetHandledException());
    const Ref capsule = exit && is_exit_with(exit.get(), text) ? capsule_of(exit.get()) : Ref{};
    if (!capsule) {
      return true;
    }
    Killing& killing = *of(capsule.get());
    return !killing.is_in_victim() || !killing.is_unwanted() ||
           !cpython::has_loop_after_handling(exit.get()) || killing.leave();
  }

 private:
  Killing(Greenlet& victim, Greenlet& killer) noexcept
      : references_(Py_REFCNT(victim.object()) + 1), victim_(victim), killer_(killer) {}

  static Killing* of(PyObject* capsule) noexcept {
    return static_cast<Killing*>(PyCapsule_GetPointer(capsule, kKillingName));
  }
  static bool is_exit_with(PyObject* exception, PyObject* text) noexcept {
    const Thread* const thread = current_or_null();
    if (thread == nullptr ||
        reinterpret_cast<PyObject*>(Py_TYPE(exception)) != thread->module_->greenlet_exit) {
      return false;
    }
    const Ref args = Ref::take(PyObject_GetAttrString(exception, "args"));
    PyErr_Clear();
    return args && PyTuple_Check(args.get()) && PyTuple_GET_SIZE(args.get()) == 1 &&
           PyTuple_GET_ITEM(args.get(), 0) == text;
  }
  // Null if it has none, which is no error.
  static Ref capsule_of(PyObject* exception) noexcept {
    Ref capsule = Ref::take(PyObject_GetAttrString(exception, kKillingName));
    PyErr_Clear();
    return capsule && PyCapsule_IsValid(capsule.get(), kKillingName) ? std::move(capsule) : Ref{};
  }
  static void exit_is_let_go(PyObject* capsule) noexcept {
    Killing* const killing = of(capsule);
    if (killing->is_in_victim()) {
      Ref pending = Ref::take(cpython::take_exception());
      if (killing->is_unwanted() && cpython::has_loop_ahead() && !killing->leave()) {
        PyErr_WriteUnraisable(killing->victim_.object());  // this is in a destructor
      }
      if (pending) {
        cpython::raise_exception(pending.release());
      }
    }
    killing->release();
  }
  bool is_in_victim() const noexcept {
    const Thread* const thread = current_or_null();
    return thread != nullptr && !over_.load(std::memory_order_relaxed) &&
           thread->running_ == &victim_;
  }
  // Not if its run has returned, or it has come back to life, that is someone has a new reference
  // to it.
  bool is_unwanted() const noexcept {
    return victim_.run_ != nullptr && Py_REFCNT(victim_.object()) <= references_;
  }
  // For good; or until somebody resumes it: false if with an exception, which is set.
  bool leave() noexcept {
    over_.store(true, std::memory_order_relaxed);
    Greenlet& victim = victim_;
    victim.refused_ = true;
    const Ref received =
        Ref::take(current_or_null()->deliver(killer_, Message::value(Ref::share(Py_None))));
    victim.refused_ = false;
    return static_cast<bool>(received);
  }
  void release() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      PyMem_RawFree(this);
    }
  }

  std::atomic<int> holders_{2};
  std::atomic<bool> over_{false};
  const Py_ssize_t references_;  // to the victim when it runs
  // Both are there until it is over, and to be looked into by their thread only.
  Greenlet& victim_;
  Greenlet& killer_;
};

PyObject* Thread::read_killed_text(PyObject*, PyObject* text) noexcept {
  return Killing::text_is_read(text) ? PyUnicode_FromObject(text) : nullptr;
}

void Thread::kill(Greenlet& greenlet, IfCaught if_caught) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  if (greenlet.has_refused()) {
    greenlet.keep();
    return;
  }
  Ref pending = Ref::take(cpython::take_exception());
  const Ref killer = Ref::share(running_->object());
  Ref parent = Ref::share(killer.get());  // then its own; the killer cannot descend from it
  greenlet.exchange_parent(parent);
  const bool is_left = if_caught == IfCaught::kIsLeft;
  const Ref text = Ref::take(is_left ? PyObject_CallFunction(module_->killed_text, "s", kKilledText)
                                     : PyUnicode_FromString(kKilledText));
  if (text) {
    PyErr_SetObject(module_->greenlet_exit, text.get());  // what is handled here is its context
  }
  Ref exit = Ref::take(cpython::take_exception());
  Killing* const killing = is_left ? Killing::begin(exit.get(), greenlet, *running_) : nullptr;
  const Ref received = Ref::take(deliver(greenlet, Message::raise(std::move(exit))));
  if (killing != nullptr) {
    killing->end();
  }
  if (!received) {
    // Ours, if we are killed ourselves meanwhile.
    Ref exception = Ref::take(cpython::take_exception());
    Killing::forgive(exception.get());
    // What one throws that has not died of it would be for the code of the running greenlet, of
    // which there is none here: gevent's hub throws LoopExit into its parent.
    if (if_caught == IfCaught::kGoesOn || greenlet.is_dead()) {
      cpython::raise_exception(exception.release());
      PyErr_WriteUnraisable(greenlet.object());
    }
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
    // it to us may have been its finalizer. (A collection that is under way has to see that it has
    // called that; see cpython::pass_of().)
    if (!collected && Py_TYPE(dropped.get())->tp_finalize == module_->greenlet_type->tp_finalize) {
      cpython::allow_finalizer_again(dropped.get());
    }
    // Not so if it is in a cycle. The collection that found it may still be under way, and would
    // clear it once our reference is gone; to be dead before is all that helps.
    if (collected) {
      kill(Greenlet::of(dropped.get()), IfCaught::kIsLeft);
    }
  }
}

void Thread::end(bool in_own_thread) noexcept {
  Thread* const outer = std::exchange(ending_, this);  // its finally blocks may end other worlds
  if (in_own_thread) {
    remember(this);  // what runs now must not attach anew
    if (running_ != main_) {
      give_back_thread_state();
    } else if (cpython::can_run_python(tstate_)) {
      end_greenlets();
    }
  }
  abandon_all(in_own_thread);
  ending_ = outer;
  key_.store(reinterpret_cast<PyThreadState*>(this), std::memory_order_relaxed);
  if (in_own_thread) {
    remembered_.thread = remembered_.idle = nullptr;
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
  free_.put(this);
}

void Thread::end_greenlets() noexcept {
  Ref held;
  const auto are_left = [&] {
    finish_pending_slowly();
    Ref next = hold_those_to_end();
    const bool any = next && PyList_GET_SIZE(next.get()) > 0;
    held = any ? std::move(next) : Ref{};
    return any;
  };
  const auto are_left_or_new = [&] {
    // To let go of the last ones may run finalizers, which start others.
    return are_left() ? true : are_left();
  };
  for (int round = 0; round < kEndRounds && are_left_or_new(); ++round) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(held.get()); ++i) {
      Greenlet& greenlet = Greenlet::of(PyList_GET_ITEM(held.get(), i));
      ++greenlet.end_tries_;
      kill(greenlet, IfCaught::kIsLeft);
    }
  }
}

void Thread::watch_exit(ModuleState& module) noexcept {
  if (module.exit_is_watched.exchange(true, std::memory_order_relaxed)) {
    return;
  }
  static PyMethodDef definition = {"_at_exit", &at_exit, METH_NOARGS, nullptr};
  Ref pending = Ref::take(cpython::take_exception());
  const Ref function = Ref::take(PyCFunction_New(&definition, nullptr));
  const Ref atexit = Ref::take(function ? PyImport_ImportModule("atexit") : nullptr);
  // Functions that are registered later are called before.
  const Ref done = Ref::take(
      atexit ? PyObject_CallMethod(atexit.get(), "register", "O", function.get()) : nullptr);
  PyErr_Clear();  // without it, those greenlets are abandoned
  if (pending) {
    cpython::raise_exception(pending.release());
  }
}

PyObject* Thread::at_exit(PyObject*, PyObject*) noexcept {
  PyThreadState* const mine = cpython::current_thread_state();
  if (cpython::is_finalizing() || !cpython::can_run_python(mine)) {
    Py_RETURN_NONE;
  }
  PyThreadState* other = nullptr;
  for (std::uint64_t id = UINT64_MAX; (other = cpython::idle_thread_state(mine, id)) != nullptr;) {
    id = cpython::id_of(other);
    PyThreadState_Swap(other);
    Thread* const thread = current_or_null();
    if (thread != nullptr && thread->running_ == thread->main_) {
      thread->end_greenlets();
    }
    PyThreadState_Swap(mine);
  }
  Py_RETURN_NONE;
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
    return greenlet.state() == State::kSuspended && greenlet.end_tries_ < kEndTries &&
           !greenlet.has_refused();
  };
  Py_ssize_t most = 0;
  for (Greenlet* greenlet = started_; greenlet != nullptr; greenlet = greenlet->next_) {
    most += is_to_end(*greenlet) ? 1 : 0;
  }
  if (most == 0) {
    return {};
  }
  // On 3.11 this may collect, and finalizers start more; those are for the next time.
  Ref held = Ref::take(PyList_New(most));
  if (!held) {
    PyErr_Clear();
    return {};
  }
  const cpython::StoppedWorld still;
  Py_ssize_t count = 0;
  for (Greenlet* greenlet = started_; greenlet != nullptr && count < most;
       greenlet = greenlet->next_) {
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

bool Thread::has_ended(PyThreadState* tstate) noexcept {
  if (ended_.tstate_id != PyThreadState_GetID(tstate) ||
      ended_.interpreter_id != PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate))) {
    return false;
  }
  const ModuleState* const module = ModuleState::of_interpreter_or_null();
  return module == nullptr || module->serial == ended_.module_serial;
}

}  // namespace greenlet::core
