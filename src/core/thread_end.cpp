// How a thread that ends kills and abandons its greenlets.
#include "core/thread_end.h"

#include <mutex>
#include <optional>
#include <utility>

#include "core/killing.h"
#include "core/thread_registry.h"
#include "cpython/errors.h"
#include "cpython/gc_protocol.h"
#include "cpython/locks.h"
#include "cpython/objects.h"
#include "cpython/thread_states.h"

namespace greenlet::core {
namespace {

// How often a thread that ends kills a greenlet that goes on. One GreenletExit may not be enough.
// The greenlet may be in the middle of dropping another greenlet, whose finally block has switched
// away. The GreenletExit is raised there, in a deallocation, and no exception leaves a
// deallocation.
constexpr int kMostKills = 10;
// The same while a collection is under way. The greenlet may be in that collection: it has switched
// away in one of its finalizers. There may be any number of finalizers. If the greenlet were
// abandoned there, no collection could begin any more.
constexpr int kMostKillsInCollection = 10'000;
// How long the end of a thread waits for a collection that may be another thread's.
constexpr int kCollectionPatienceMilliseconds = 1'000;
// How often it looks for greenlets that were started since it looked last.
constexpr int kMostRounds = 100;

// New references to the started greenlets of `thread` that are to be killed, as a tuple. Without
// memory for one, the oldest of these greenlets. Null if there are none.
//
// Thread::started() owns no references, and another thread may drop the last reference to a
// greenlet at this moment: it then deallocates the greenlet, which means that it hands it over to
// us. While the world is stopped, that thread either has not begun, or has handed it over; or the
// greenlet waits in CPython's trashcan for its deallocation, and nothing can reach it.
Ref list_greenlets_to_kill(const Thread& thread) noexcept {
  const int most_kills = cpython::is_collecting() ? kMostKillsInCollection : kMostKills;
  const auto is_to_be_killed = [&](const Greenlet& greenlet) {
    return greenlet.state() == State::kSuspended && greenlet.kills_at_end() < most_kills &&
           !is_spared(thread, greenlet);
  };
  Py_ssize_t most = 0;
  for (const Greenlet& greenlet : thread.started()) {
    most += is_to_be_killed(greenlet) ? 1 : 0;
  }
  if (most == 0) {
    return {};
  }
  // On 3.11 this may collect, and finalizers may start more greenlets: those are for the next look.
  // (No list: PyList_New() of free-threaded 3.14 and 3.15 crashes without memory for the items.)
  Ref held = Ref::take(PyTuple_New(most));
  if (!held) {
    PyErr_Clear();
  }
  const cpython::StoppedWorld stopped;
  Py_ssize_t count = 0;
  for (const Greenlet& greenlet : thread.started()) {
    if (count == most) {
      break;
    }
    if (is_to_be_killed(greenlet) && !cpython::is_being_deallocated(greenlet.object())) {
      if (!held) {
        return Ref::share(greenlet.object());
      }
      PyTuple_SET_ITEM(held.get(), count++, Py_NewRef(greenlet.object()));
    }
  }
  if (count == 0) {
    return {};
  }
  Py_SET_SIZE(held.get(), count);
  return held;
}

// Kills the started greenlets of `thread` that are not spared, and those that start while it does,
// until none is left or each has been killed often enough.
void kill_started(Thread& thread) noexcept {
  Ref held;
  const auto hold_next = [&] {
    kill_dropped_slowly(thread);
    held = list_greenlets_to_kill(thread);
    return static_cast<bool>(held);
  };
  const auto hold_next_or_new = [&] {
    // The assignment to `held` drops the last tuple. That may run finalizers, which may start
    // greenlets; so one more look follows where there seem to be none.
    return hold_next() ? true : hold_next();
  };
  for (int round = 0; round < (cpython::is_collecting() ? kMostKillsInCollection : kMostRounds) &&
                      hold_next_or_new();) {
    // Without memory no more of them start. So their number bounds the rounds that kill one each.
    const bool is_tuple = PyTuple_CheckExact(held.get());
    round += is_tuple ? 1 : 0;
    for (Py_ssize_t i = 0; i < (is_tuple ? PyTuple_GET_SIZE(held.get()) : 1); ++i) {
      Greenlet& greenlet = Greenlet::of(is_tuple ? PyTuple_GET_ITEM(held.get(), i) : held.get());
      if (thread.end_phase() == Thread::End::kSparesNone && !cpython::is_collecting()) {
        return;
      }
      greenlet.set_kills_at_end(greenlet.kills_at_end() + 1);
      if (kill(thread, greenlet, KillCause::kThreadEnds)) {
        greenlet.set_kills_at_end(kMostKillsInCollection);
      }
    }
  }
}

bool has_spared(const Thread& thread) noexcept {
  for (const Greenlet& greenlet : thread.started()) {
    if (greenlet.state() == State::kSuspended && is_spared(thread, greenlet)) {
      return true;
    }
  }
  return false;
}

// Kills all greenlets of `thread`, the calling one, but schedulers.
void kill_all(Thread& thread) noexcept {
  thread.set_end_phase(Thread::End::kSparesSchedulers);
  kill_started(thread);
  // A scheduler may have left a collection by a switch in a finalizer. If it were abandoned there,
  // no collection could begin any more. A collection of another thread ends soon.
  if (has_spared(thread) && !cpython::wait_for_collection(kCollectionPatienceMilliseconds)) {
    thread.set_end_phase(Thread::End::kSparesNone);
    kill_started(thread);
    thread.set_end_phase(Thread::End::kSparesSchedulers);
  }
}

void abandon_all(Thread& thread, bool in_own_thread) noexcept {
  Greenlet* queued = nullptr;
  {
    std::optional<cpython::StoppedWorld> stopped;
    if (in_own_thread && !thread.started().is_empty()) {
      // As in list_greenlets_to_kill(). If another thread ends this one, no third thread runs.
      stopped.emplace();
    }
    const std::lock_guard lock(thread.module().owners);
    thread.main().abandon_main();
    thread.running().stack_state().finish();  // nothing saved of the running greenlet is up to date
    for (Greenlet& greenlet : thread.started()) {
      greenlet.abandon(thread.impl_fields());
    }
    queued = thread.dropped().take_all();
  }
  DroppedQueue::drop_all(queued, thread.module());
}

// Stands in for the method _delete() of a threading.Thread, which threading calls last.
PyObject* at_end_of_run(PyObject* thread_and_method, PyObject*) noexcept {
  // Deletes the only reference to the function that is running here, and the reference cycle.
  const Ref thread = Ref::share(PyTuple_GET_ITEM(thread_and_method, 0));
  const Ref method = Ref::share(PyTuple_GET_ITEM(thread_and_method, 1));
  const Ref attributes = Ref::take(PyObject_GenericGetDict(thread.get(), nullptr));
  if (!attributes || PyDict_DelItemString(attributes.get(), "_delete") < 0) {
    PyErr_Clear();  // other code has removed it
  }
  Thread* const own = ThreadRegistry::current_or_null();
  if (own != nullptr && own->runs_main() && cpython::can_run_python(own->tstate())) {
    kill_all(*own);
  }
  return PyObject_CallNoArgs(method.get());
}

// The atexit function.
PyObject* at_exit(PyObject*, PyObject*) noexcept {
  PyThreadState* const mine = cpython::current_thread_state();
  if (cpython::is_finalizing() || !cpython::can_run_python(mine)) {
    Py_RETURN_NONE;
  }
  PyThreadState* other = nullptr;
  for (std::uint64_t id = UINT64_MAX; (other = cpython::idle_thread_state(mine, id)) != nullptr;) {
    id = cpython::id_of(other);
    PyThreadState_Swap(other);
    Thread* const thread = ThreadRegistry::current_or_null();
    if (thread != nullptr && thread->runs_main()) {
      kill_all(*thread);
    }
    PyThreadState_Swap(mine);
  }
  // When CPython clears the thread state of another interpreter, the modules there are empty, and
  // since 3.12 no Python code can run any more.
  Thread* const own = ThreadRegistry::current_or_null();
  if (mine->interp != PyInterpreterState_Main() && own != nullptr && own->runs_main()) {
    kill_all(*own);
  }
  Py_RETURN_NONE;
}

}  // namespace

void end_greenlets(Thread& thread, bool in_own_thread) noexcept {
  if (in_own_thread) {
    if (!thread.runs_main()) {
      thread.give_back_thread_state();
    } else if (cpython::can_run_python(thread.tstate())) {
      kill_all(thread);
    }
  }
  abandon_all(thread, in_own_thread);
}

void hook_end_of_run() noexcept {
  static PyMethodDef definition = {"_delete", &at_end_of_run, METH_NOARGS, nullptr};
  const cpython::ExceptionAside aside;
  // Anything that is missing here is no error: the greenlets are then killed when CPython clears
  // the thread state. (Nothing may be looked up while an exception is set.)
  const auto found = [](PyObject* object) {
    if (object == nullptr) {
      PyErr_Clear();
    }
    return Ref::take(object);
  };
  // Interned: the type cache keeps each name that it meets, by its address.
  const auto attribute = [&](const Ref& object, const char* text) {
    const Ref name = found(object ? PyUnicode_InternFromString(text) : nullptr);
    return found(name ? PyObject_GetAttr(object.get(), name.get()) : nullptr);
  };
  const Ref name = found(PyUnicode_FromString("threading"));
  const Ref threading = found(name ? PyImport_GetModule(name.get()) : nullptr);
  const Ref active = attribute(threading, "_active");
  const Ref ident = found(PyLong_FromUnsignedLong(PyThread_get_thread_ident()));
  const Ref thread = found(active && ident ? PyObject_GetItem(active.get(), ident.get()) : nullptr);
  const Ref main = attribute(threading, "_main_thread");
  const Ref method = attribute(thread, definition.ml_name);
  // Before 3.13 the object may be a dummy of an earlier thread with the same ident, and be hooked
  // already.
  const bool is_hooked = method && PyCFunction_Check(method.get()) &&
                         PyCFunction_GetFunction(method.get()) == definition.ml_meth;
  const Ref attributes = found(method && !is_hooked && thread.get() != main.get()
                                   ? PyObject_GenericGetDict(thread.get(), nullptr)
                                   : nullptr);
  const Ref both = found(attributes ? PyTuple_Pack(2, thread.get(), method.get()) : nullptr);
  const Ref function = found(both ? PyCFunction_New(&definition, both.get()) : nullptr);
  // Not by its __setattr__(), which may do anything.
  if (function && PyDict_SetItemString(attributes.get(), definition.ml_name, function.get()) < 0) {
    PyErr_Clear();
  }
}

void hook_exit(ModuleState& module) noexcept {
  if (module.is_exit_hooked.exchange(1, std::memory_order_relaxed) != 0) {
    return;
  }
  static PyMethodDef definition = {"_at_exit", &at_exit, METH_NOARGS, nullptr};
  const cpython::ExceptionAside aside;
  const Ref function = Ref::take(PyCFunction_New(&definition, nullptr));
  const Ref atexit = Ref::take(function ? PyImport_ImportModule("atexit") : nullptr);
  // atexit calls functions that are registered later before this one.
  const Ref done = Ref::take(
      atexit ? PyObject_CallMethod(atexit.get(), "register", "O", function.get()) : nullptr);
  PyErr_Clear();  // if this fails, those greenlets are abandoned
}

}  // namespace greenlet::core
