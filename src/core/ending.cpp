// How greenlets end that do not end by themselves: dropped, here or in another thread, and left
// behind by a thread that ends, with that thread's world.
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "core/thread.h"
#include "cpython/errors.h"
#include "cpython/gc_protocol.h"
#include "cpython/locks.h"
#include "cpython/objects.h"
#include "cpython/thread_states.h"

namespace greenlet::core {
namespace {

constexpr const char* kKilledText = "Killing the greenlet because all references have vanished.";
// How often a thread that ends raises GreenletExit in a greenlet that goes on. One may have to let
// it pass, as where it was in the middle of dropping another greenlet, whose finally block
// switched: what is raised in a destructor goes no further.
constexpr int kEndTries = 10;
// The same while a collection is under way, which the greenlet may have left by a switch in a
// finalizer. There may be any number of those, and whoever abandons it turns collections off.
constexpr int kEndTriesInCollection = 10'000;
// How long it waits for a collection to end that may be another thread's, in milliseconds.
constexpr int kCollectionPatience = 1'000;
// How often it looks for greenlets that were started in between.
constexpr int kEndRounds = 100;

}  // namespace

void Thread::end_unreachable(Greenlet& greenlet, Cause cause) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  Thread* const thread = current_or_null();
  if (thread == nullptr || greenlet.thread() != thread || thread->calls_on_thread_stack_) {
    if (cause == Cause::kCollected) {
      greenlet.is_found_ = true;
    } else {
      hand_to_owner(greenlet, cause);
    }
    return;
  }
  if (cause == Cause::kCollected) {
    // The collection waits for us, so it cannot come to the generators under way in the meantime.
    greenlet.stack_state_.unmark_generators();
  }
  thread->end_here(greenlet, cause);
  if (cause == Cause::kCollected && greenlet.state() == State::kSuspended) {
    greenlet.stack_state_.mark_generators();
  }
}

void Thread::end_here(Greenlet& greenlet, Cause cause) noexcept {
  if (is_spared(greenlet)) {
    greenlet.keep();
    return;
  }
  PyObject* const object = greenlet.object();
  const Py_ssize_t references = Py_REFCNT(object);
  const bool thrown_on = kill(greenlet, cause);
  const bool is_unwanted = Py_REFCNT(object) <= references;
  if (greenlet.state() == State::kSuspended && is_unwanted) {
    // What its stack holds must stay as it is.
    greenlet.keep();
    if (!thrown_on) {
      PySys_FormatStderr("GreenletExit did not kill %R\n", object);
    }
  }
}

bool Thread::is_spared(const Greenlet& greenlet) const noexcept {
  return greenlet.is_scheduler() && ((is_ending_ && !spares_none_) || cpython::is_finalizing());
}

bool Thread::kill(Greenlet& greenlet, Cause cause) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return false;
  }
  Ref pending = Ref::take(cpython::take_exception());
  const Ref killer = Ref::share(running_->object());
  const bool is_dropped = cause == Cause::kDropped;
  const bool is_adopted = is_dropped || greenlet.has_dead_parent();
  Ref parent;
  if (is_adopted) {
    parent = Ref::share(killer.get());  // then its own; the killer cannot descend from it
    greenlet.exchange_parent(parent);
  }
  Greenlet::Kill waits = {is_dropped ? nullptr : running_, greenlet.kills_};
  greenlet.kills_ = &waits;
  if (const Ref text = Ref::take(PyUnicode_FromString(kKilledText))) {
    // What is handled here is its context.
    PyErr_SetObject(is_dropped ? module_->greenlet_exit : module_->final_exit, text.get());
  }
  Ref exit = Ref::take(cpython::take_exception());
  const Ref raised = Ref::share(is_dropped ? nullptr : exit.get());
  const Ref received = Ref::take(deliver(greenlet, Message::raise(std::move(exit))));
  bool thrown_on = false;
  if (!received) {
    Ref exception = Ref::take(cpython::take_exception());
    thrown_on = exception.get() == raised.get() && !greenlet.is_dead();
    // What one throws that has not died of it would be for the code of the running greenlet, of
    // which there is none here: gevent's hub throws LoopExit into its parent.
    if (!thrown_on && (is_dropped || greenlet.is_dead())) {
      cpython::raise_exception(exception.release());
      PyErr_WriteUnraisable(greenlet.object());
    }
  }
  greenlet.remove_kill(waits);
  // Back to its own parent, unless it has chosen another, or made that one its child.
  if (parent && greenlet.parent().get() == killer.get()) {
    greenlet.exchange_parent(parent);
  }
  parent = {};
  if (pending) {
    cpython::raise_exception(pending.release());
  }
  return thrown_on;
}

void Thread::hand_over_if_found(Greenlet& greenlet) noexcept {
  if (std::exchange(greenlet.is_found_, false)) {
    hand_to_owner(greenlet, Cause::kCollected);
  }
}

bool Thread::hand_to_owner(Greenlet& greenlet, Cause cause) noexcept {
  const std::lock_guard lock(greenlet.module_->owners);
  Thread* const owner = greenlet.thread();
  if (owner == nullptr || greenlet.is_pending_) {
    return false;
  }
  greenlet.is_pending_ = true;
  greenlet.collected_ = cause == Cause::kCollected;
  Py_INCREF(greenlet.object());
  greenlet.next_pending_ = owner->pending_.load(std::memory_order_relaxed);
  owner->pending_.store(&greenlet, std::memory_order_release);
  ++greenlet.module_->pending_greenlets;
  return true;
}

void Thread::take_back(Greenlet& greenlet) noexcept {
  Ref taken;  // dropped after the lock
  const std::lock_guard lock(module_->owners);
  Greenlet* before = nullptr;  // in the queue ahead of `each`
  Greenlet* each = pending_.load(std::memory_order_relaxed);
  while (each != nullptr && each != &greenlet) {
    before = std::exchange(each, each->next_pending_);
  }
  if (each == nullptr) {
    return;
  }
  if (before == nullptr) {
    pending_.store(greenlet.next_pending_, std::memory_order_relaxed);
  } else {
    before->next_pending_ = greenlet.next_pending_;
  }
  greenlet.is_pending_ = false;
  --module_->pending_greenlets;
  taken = Ref::take(greenlet.object());
}

void Thread::finish_pending_slowly() noexcept {
  if (calls_on_thread_stack_) {
    return;  // they wait until the call is over
  }
  note_event();
  if (running_->kills_ != nullptr) {
    // The greenlet that waits for the running one to end goes on with the rest then. If one of the
    // rest waited again, it would leave the running one in the middle of this, where the next
    // GreenletExit could only be reported.
    return;
  }
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
    Greenlet& greenlet = Greenlet::of(dropped.get());
    if (greenlet.state() != State::kSuspended) {
      continue;
    }
    if (collected) {
      // Whoever has come to refer to it since.
      end_here(greenlet, Cause::kCollected);
    } else if (Py_REFCNT(dropped.get()) == 1) {
      // Before its deallocation: that of a class with __slots__ would clear them first, as its
      // finalizer has been called already.
      end_here(greenlet, Cause::kDropped);
    } else if (Py_TYPE(dropped.get())->tp_finalize == module_->greenlet_type->tp_finalize) {
      // It lives on, or another thread drops it at this moment; then it has to be finalized again.
      // (A collection that is under way has to see that it has called that; see
      // cpython::pass_of().)
      cpython::allow_finalizer_again(dropped.get());
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
  sweep_ = {};
  attention_ = 0;
  is_ending_ = spares_none_ = calls_on_thread_stack_ = false;
  std::destroy_at(&pool_);
  std::construct_at(&pool_);
  free_.put(this);
}

void Thread::hook_end_of_run() noexcept {
  static PyMethodDef method = {"_delete", &at_end_of_run, METH_NOARGS, nullptr};
  Ref pending = Ref::take(cpython::take_exception());
  // Whatever is missing here is no error: the end of the thread state does it then. (Nothing may be
  // looked up while an exception is set.)
  const auto found = [](PyObject* object) {
    if (object == nullptr) {
      PyErr_Clear();
    }
    return Ref::take(object);
  };
  const auto attribute = [&](const Ref& object, const char* name) {
    return found(object ? PyObject_GetAttrString(object.get(), name) : nullptr);
  };
  const Ref name = found(PyUnicode_FromString("threading"));
  const Ref threading = found(name ? PyImport_GetModule(name.get()) : nullptr);
  const Ref active = attribute(threading, "_active");
  const Ref ident = found(PyLong_FromUnsignedLong(PyThread_get_thread_ident()));
  const Ref thread = found(active && ident ? PyObject_GetItem(active.get(), ident.get()) : nullptr);
  const Ref main = attribute(threading, "_main_thread");
  const Ref own = attribute(thread, method.ml_name);
  // Before 3.13 a dummy of an earlier thread with the same ident may be there, and have it already.
  const bool is_hooked =
      own && PyCFunction_Check(own.get()) && PyCFunction_GetFunction(own.get()) == method.ml_meth;
  const Ref attributes = found(own && !is_hooked && thread.get() != main.get()
                                   ? PyObject_GenericGetDict(thread.get(), nullptr)
                                   : nullptr);
  const Ref both = found(attributes ? PyTuple_Pack(2, thread.get(), own.get()) : nullptr);
  const Ref function = found(both ? PyCFunction_New(&method, both.get()) : nullptr);
  // Not by its __setattr__(), which may be anything.
  if (function && PyDict_SetItemString(attributes.get(), method.ml_name, function.get()) < 0) {
    PyErr_Clear();
  }
  if (pending) {
    cpython::raise_exception(pending.release());
  }
}

PyObject* Thread::at_end_of_run(PyObject* thread_and_method, PyObject*) noexcept {
  // Deletes the only reference to what is running here, and the reference cycle.
  const Ref thread = Ref::share(PyTuple_GET_ITEM(thread_and_method, 0));
  const Ref own = Ref::share(PyTuple_GET_ITEM(thread_and_method, 1));
  const Ref attributes = Ref::take(PyObject_GenericGetDict(thread.get(), nullptr));
  if (!attributes || PyDict_DelItemString(attributes.get(), "_delete") < 0) {
    PyErr_Clear();  // somebody has taken it away
  }
  Thread* const world = current_or_null();
  if (world != nullptr && world->running_ == world->main_ &&
      cpython::can_run_python(world->tstate_)) {
    world->end_greenlets();
  }
  return PyObject_CallNoArgs(own.get());
}

void Thread::end_greenlets() noexcept {
  is_ending_ = true;
  end_those_not_spared();
  // A scheduler may have left a collection by a switch in a finalizer. If it were abandoned there,
  // none could begin any more. A collection of another thread ends soon.
  if (has_spared() && !cpython::wait_for_collection(kCollectionPatience)) {
    spares_none_ = true;
    end_those_not_spared();
    spares_none_ = false;
  }
}

bool Thread::has_spared() const noexcept {
  const Greenlet* greenlet = started_;
  while (greenlet != nullptr && (greenlet->state() != State::kSuspended || !is_spared(*greenlet))) {
    greenlet = greenlet->next_;
  }
  return greenlet != nullptr;
}

void Thread::end_those_not_spared() noexcept {
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
  for (int round = 0;
       round < (cpython::is_collecting() ? kEndTriesInCollection : kEndRounds) && are_left_or_new();
       ++round) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(held.get()); ++i) {
      Greenlet& greenlet = Greenlet::of(PyList_GET_ITEM(held.get(), i));
      if (spares_none_ && !cpython::is_collecting()) {
        return;
      }
      ++greenlet.end_tries_;
      if (kill(greenlet, Cause::kThreadEnds)) {
        greenlet.end_tries_ = kEndTriesInCollection;
      }
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
  running_->stack_state_.save(tstate_, anchors_);
  main_->stack_state_.restore(tstate_, anchors_);
  if (anchors_.stack_limits != nullptr) {
    *anchors_.stack_limits = limits;
  }
}

// The list of started greenlets owns no reference to them, and another thread may drop the last one
// at this moment: it then deallocates the greenlet, or rather hands it to us. With the world
// stopped it has not begun, or has done that; or the greenlet waits for its deallocation with all
// that it hangs on (CPython's trashcan), and is out of reach.
Ref Thread::hold_those_to_end() noexcept {
  const int tries = cpython::is_collecting() ? kEndTriesInCollection : kEndTries;
  const auto is_to_end = [&](const Greenlet& greenlet) {
    return greenlet.state() == State::kSuspended && greenlet.end_tries_ < tries &&
           !is_spared(greenlet);
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
    main_->stack_state_.finish();
    running_->stack_state_.finish();
    main_->thread_ = nullptr;
    main_->state_ = State::kAbandoned;
    // The frames of the others cannot be unwound any more and own what they hold for ever, and
    // someone may have frame objects that point there: neither the stacks nor the greenlets can be
    // freed.
    for (greenlet = started_; greenlet != nullptr; greenlet = greenlet->next_) {
      greenlet->thread_ = nullptr;
      greenlet->state_ = State::kAbandoned;
      greenlet->stack_state_.abandon(anchors_);
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
