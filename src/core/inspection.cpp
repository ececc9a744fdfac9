// Looks at greenlets while their owners cannot change them.
#include "core/inspection.h"

#include <optional>

#include "core/thread_registry.h"
#include "cpython/locks.h"

namespace greenlet::core {
namespace {

// Calls `look`, which runs no Python code, while no other thread can change `greenlet`.
template <typename Look>
auto with_owner_stopped(const Greenlet& greenlet, Look look) noexcept {
  {
    // A greenlet without an owner may be changed, and started, by any thread, but only under this
    // lock.
    const cpython::ObjectLock lock(greenlet.object());
    if (!greenlet.is_active()) {
      return look();
    }
  }
  std::optional<cpython::StoppedWorld> stopped;
  const Thread* const owner = greenlet.thread();
  if (owner == nullptr || owner != ThreadRegistry::current_or_null()) {
    stopped.emplace();
  }
  return look();
}

// Where the context of a greenlet is. While the greenlet runs, its thread state has it.
enum class ContextPlace : unsigned char { kStackState, kOwnThreadState, kOtherThreadState };

ContextPlace place_of_context(const Greenlet& greenlet) noexcept {
  if (greenlet.state() != State::kRunning) {
    return ContextPlace::kStackState;
  }
  const Thread* const thread = ThreadRegistry::current_or_null();
  return thread != nullptr && greenlet.thread() == thread ? ContextPlace::kOwnThreadState
                                                          : ContextPlace::kOtherThreadState;
}

}  // namespace

Ref innermost_frame(Greenlet& greenlet) noexcept {
  if (greenlet.state() != State::kSuspended) {
    return {};
  }
  PyFrameObject* const frame = with_owner_stopped(greenlet, [&]() -> PyFrameObject* {
    return greenlet.state() == State::kSuspended
               ? greenlet.stack_state().innermost_frame(cpython::current_thread_state())
               : nullptr;
  });
  return Ref::take(reinterpret_cast<PyObject*>(frame));
}

std::size_t stack_in_use(const Greenlet& greenlet) noexcept {
  return with_owner_stopped(greenlet, [&]() -> std::size_t { return greenlet.stack_in_use(); });
}

bool get_context(Greenlet& greenlet, Ref& context) noexcept {
  return with_owner_stopped(greenlet, [&] {
    switch (place_of_context(greenlet)) {
      case ContextPlace::kStackState:
        context = Ref::share(greenlet.stack_state().context_variables());
        return true;
      case ContextPlace::kOwnThreadState:
        context = Ref::share(cpython::current_thread_state()->context);
        return true;
      case ContextPlace::kOtherThreadState:
        break;
    }
    return false;
  });
}

bool exchange_context(Greenlet& greenlet, Ref& context) noexcept {
  return with_owner_stopped(greenlet, [&] {
    // `context` is empty when it is assigned to, so nothing is dropped in here.
    switch (place_of_context(greenlet)) {
      case ContextPlace::kStackState:
        context = Ref::take(greenlet.stack_state().exchange_context_variables(context.release()));
        return true;
      case ContextPlace::kOwnThreadState:
        context = Ref::take(cpython::exchange_running_context_variables(
            cpython::current_thread_state(), context.release()));
        return true;
      case ContextPlace::kOtherThreadState:
        break;
    }
    return false;
  });
}

const Thread* thread_of(const Greenlet& greenlet) noexcept {
  for (;;) {
    const Ref held = greenlet.thread_representative();
    const Greenlet& representative = Greenlet::of(held.get());
    const Thread* const thread = representative.thread();
    if (thread != nullptr || representative.state() != State::kDead || !representative.parent()) {
      return thread;
    }
    // It has finished since, in its own thread. Now another greenlet is the representative.
  }
}

}  // namespace greenlet::core
