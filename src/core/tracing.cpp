#include "core/tracing.h"

#include "core/thread_registry.h"
#include "cpython/locks.h"

namespace greenlet::core {

bool call_tracer(PyObject* callback, bool is_throw, const Greenlet& origin,
                 const Greenlet& target) noexcept {
  const Ref result = Ref::take(PyObject_CallFunction(
      callback, "s(OO)", is_throw ? "throw" : "switch", origin.object(), target.object()));
  return static_cast<bool>(result);
}

Ref exchange_tracer_of_all(ModuleState& module, Ref callback) noexcept {
  const cpython::StoppedWorld stopped;
  Ref old = Ref::take(std::exchange(module.tracer, callback.release()));
  ThreadRegistry::for_each(module, [&](Thread& thread) {
    thread.set_attention(Thread::kTracedInAll, module.tracer != nullptr);
  });
  return old;
}

bool set_hook(ModuleState& module, SwitchHook hook) noexcept {
  const cpython::StoppedWorld stopped;
  return set_hook_when_stopped(module, hook);
}

bool set_hook_when_stopped(ModuleState& module, SwitchHook hook) noexcept {
  if (hook.function != nullptr && module.hook.function != nullptr) {
    return false;
  }
  module.hook = hook;
  ThreadRegistry::for_each(module, [&](Thread& thread) {
    thread.set_attention(Thread::kHooked, hook.function != nullptr);
  });
  return true;
}

}  // namespace greenlet::core
