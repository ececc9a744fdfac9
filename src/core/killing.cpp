// The killing of one greenlet, and of those in the thread's DroppedQueue.
#include "core/killing.h"

#include <utility>

#include "core/hints.h"
#include "core/thread_registry.h"
#include "cpython/errors.h"
#include "cpython/gc_protocol.h"
#include "cpython/thread_states.h"

namespace greenlet::core {
namespace {

constexpr const char* kKilledText = "Killing the greenlet because all references have vanished.";

// kill_unreachable() for a greenlet of the calling thread.
void kill_or_keep(Thread& thread, Greenlet& greenlet, KillCause cause) noexcept {
  if (is_spared(thread, greenlet)) {
    greenlet.keep();
    return;
  }
  if (cause == KillCause::kCollected) {
    note_collected(greenlet);
    if (greenlet.state() != State::kSuspended) {
      return;
    }
  }
  PyObject* const object = greenlet.object();
  const Py_ssize_t references = Py_REFCNT(object);
  const bool thrown_on = kill(thread, greenlet, cause);
  const bool is_unwanted = Py_REFCNT(object) <= references;
  if (greenlet.state() == State::kSuspended && is_unwanted) {
    greenlet.keep();  // what its stack holds must stay as it is
    if (!thrown_on) {
      PySys_FormatStderr("GreenletExit did not kill %R\n", object);
    }
  }
}

}  // namespace

void kill_unreachable(Greenlet& greenlet, KillCause cause) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  Thread* const thread = ThreadRegistry::current_or_null();
  if (thread == nullptr || greenlet.thread() != thread || thread->is_on_thread_stack()) {
    if (cause == KillCause::kCollected) {
      greenlet.set_found_by_collector();  // handed over when the collection recounts
    } else {
      DroppedQueue::hand_over(greenlet, /*by_collector=*/false);
    }
    return;
  }
  if (cause == KillCause::kCollected) {
    // The collection waits for us, so it cannot visit the generators under way now.
    greenlet.stack_state().unmark_generators();
  }
  kill_or_keep(*thread, greenlet, cause);
  if (cause == KillCause::kCollected && greenlet.state() == State::kSuspended) {
    greenlet.stack_state().mark_generators();
  }
}

bool is_spared(const Thread& thread, const Greenlet& greenlet) noexcept {
  return greenlet.is_scheduler() &&
         (thread.end_phase() == Thread::End::kSparesSchedulers || cpython::is_finalizing());
}

bool kill(Thread& thread, Greenlet& greenlet, KillCause cause) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return false;
  }
  Ref pending = Ref::take(cpython::take_exception());
  const Ref killer = Ref::share(thread.running().object());
  const bool is_dropped = cause == KillCause::kDropped;
  // The killer must go on when the greenlet finishes: it is the parent, or the heir by WaitingKill.
  // A dropped greenlet gets the killer as its parent until then, as in the published greenlet, and
  // so does a greenlet whose parent is dead. Any other keeps its parent, because its finally blocks
  // may need it: gevent takes the parent for the hub, and waits by a switch to it.
  Ref parent;
  if (is_dropped || greenlet.has_dead_parent()) {
    parent = Ref::share(killer.get());
    greenlet.exchange_parent(parent);  // now its own parent; the killer cannot descend from it
  }
  bool thrown_on = false;
  {
    const Greenlet::WaitingKill waiting(greenlet, thread.running(),
                                        is_dropped ? nullptr : &thread.running());
    if (const Ref text = Ref::take(PyUnicode_FromString(kKilledText))) {
      // The exception that is being handled here becomes its context.
      const ModuleState& module = thread.module();
      PyErr_SetObject(is_dropped ? module.greenlet_exit : module.final_exit, text.get());
    }
    Ref exit = Ref::take(cpython::take_exception());
    const Ref raised = Ref::share(is_dropped ? nullptr : exit.get());
    const Ref received = Ref::take(thread.deliver(greenlet, Message::exception(std::move(exit))));
    if (!received) {
      Ref exception = Ref::take(cpython::take_exception());
      thrown_on = exception.get() == raised.get() && !greenlet.is_dead();
      // A greenlet that is still suspended has thrown an exception at the code of the running
      // greenlet, but no such code waits here. So the exception is ignored, unless the greenlet was
      // dropped. (gevent's hub throws LoopExit into its parent.)
      if (!thrown_on && (is_dropped || greenlet.is_dead())) {
        cpython::raise_exception(exception.release());
        add_hint("killed", greenlet.object());
        PyErr_WriteUnraisable(greenlet.object());
      }
    }
  }
  // Restores the parent, unless the greenlet has got another one, or has become a parent of it.
  if (parent && greenlet.parent().get() == killer.get()) {
    greenlet.exchange_parent(parent);
  }
  parent = {};
  if (pending) {
    cpython::raise_exception(pending.release());
  }
  return thrown_on;
}

void kill_dropped_slowly(Thread& thread) noexcept {
  if (thread.is_on_thread_stack()) {
    return;  // they wait until the call is over
  }
  thread.note_event();
  if (thread.running().is_being_killed()) {
    // The greenlet that waits for the running one to finish will kill the rest. If one of the rest
    // switched away, it would leave the running greenlet in the middle of this function, where the
    // next GreenletExit could only be reported.
    return;
  }
  bool by_collector = false;
  while (const Ref dropped = thread.dropped().take(thread.module(), by_collector)) {
    Greenlet& greenlet = Greenlet::of(dropped.get());
    if (greenlet.state() != State::kSuspended) {
      continue;
    }
    if (by_collector) {
      // Even if something refers to it again.
      kill_or_keep(thread, greenlet, KillCause::kCollected);
    } else if (Py_REFCNT(dropped.get()) == 1) {
      // Before its deallocation: that of a class with __slots__ would clear the slots first,
      // because its finalizer has been called already.
      kill_or_keep(thread, greenlet, KillCause::kDropped);
    } else if (Py_TYPE(dropped.get())->tp_finalize == thread.module().greenlet_type->tp_finalize) {
      // It lives on, or another thread drops it at this moment and it has to be finalized again.
      // (A collection that is under way must still see that it has called tp_finalize; see
      // cpython::pass_of().)
      cpython::allow_finalizer_again(dropped.get());
    }
  }
}

}  // namespace greenlet::core
