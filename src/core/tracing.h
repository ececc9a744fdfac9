// What is told of each switch: the trace callbacks, of one thread and of all (greenlet.settrace()),
// the hook for profilers in C, and whether a thread has switched since the last look.
//
// A switch looks at one word for all of them (Thread::attention_), so they cost nothing while none
// is set.
#pragma once

#include <Python.h>

#include <utility>

#include "core/greenlet.h"
#include "core/module_state.h"
#include "core/ref.h"

namespace greenlet::core {

// Owns the callback of one thread, or none. Touched by its thread only.
class Tracer {
 public:
  // Borrowed, or null.
  PyObject* callback() const noexcept { return callback_; }
  // Sets or (empty) removes the callback; returns the old one.
  Ref exchange(Ref callback) noexcept {
    return Ref::take(std::exchange(callback_, callback.release()));
  }

 private:
  PyObject* callback_ = nullptr;
};

// Calls a trace callback, in `target`, after a switch from `origin`. The event is "switch" or
// "throw". If the callback raises, returns false with the exception set.
bool call_tracer(PyObject* callback, bool is_throw, const Greenlet& origin,
                 const Greenlet& target) noexcept;

// Sets or (empty) removes the callback of the threads that have none of their own, also of threads
// that use greenlets later; returns the old one. A thread calls it from its next switch on.
Ref exchange_tracer_of_all(ModuleState& module, Ref callback) noexcept;

// Sets or (null) removes the hook of all threads of the interpreter. False if another one is set.
bool set_hook(ModuleState& module, SwitchHook hook) noexcept;
// The same for a caller that has stopped the world.
bool set_hook_when_stopped(ModuleState& module, SwitchHook hook) noexcept;

}  // namespace greenlet::core
