#include "core/hints.h"

#include <utility>

#include "cpython/errors.h"
#include "cpython/locks.h"
#include "cpython/thread_states.h"

namespace greenlet::core {

void add_hint(const char* function, PyObject* subject, PyObject* other) noexcept {
  if (cpython::is_finalizing()) {
    return;  // modules are going
  }
  Ref exception = Ref::take(cpython::take_exception());
  {
    const Ref hints = Ref::take(PyImport_ImportModule("greenlet._hints"));
    const Ref done = Ref::take(hints ? PyObject_CallMethod(hints.get(), function,
                                                           other != nullptr ? "OOO" : "OO",
                                                           exception.get(), subject, other)
                                     : nullptr);
    // A KeyboardInterrupt, for one, takes its place, and has it as its context.
    if (!done && PyErr_ExceptionMatches(PyExc_Exception) == 0) {
      Ref other_exception = Ref::take(cpython::take_exception());
      if (other_exception.get() != exception.get()) {
        PyException_SetContext(other_exception.get(), exception.release());
      }
      cpython::raise_exception(other_exception.release());
      return;
    }
    PyErr_Clear();
  }
  cpython::raise_exception(exception.release());
}

void note_collected(Greenlet& greenlet) noexcept {
  ModuleState& module = greenlet.module();
  module.collected_greenlets.fetch_add(1, std::memory_order_relaxed);
  Ref callback;
  if (module.reports_collected.load(std::memory_order_relaxed)) {
    const cpython::StoppedWorld stopped;
    callback = Ref::share(module.collected_callback);
  }
  if (!callback || cpython::is_finalizing()) {
    return;
  }
  const cpython::ExceptionAside aside;
  const Ref result = Ref::take(PyObject_CallOneArg(callback.get(), greenlet.object()));
  if (!result) {
    PyErr_WriteUnraisable(callback.get());
  }
}

Ref exchange_collected_callback(ModuleState& module, Ref callback) noexcept {
  const cpython::StoppedWorld stopped;
  module.reports_collected.store(static_cast<bool>(callback), std::memory_order_relaxed);
  Ref old = Ref::take(std::exchange(module.collected_callback, callback.release()));
  return old ? std::move(old) : Ref::share(Py_None);
}

}  // namespace greenlet::core
