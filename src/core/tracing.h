// The trace callback of one thread: greenlet.settrace().
#pragma once

#include <Python.h>

#include <utility>

#include "core/greenlet.h"
#include "core/ref.h"

namespace greenlet::core {

// Owns the callback, or none. Touched by its thread only.
class Tracer {
 public:
  // Borrowed, or null.
  PyObject* callback() const noexcept { return callback_; }
  // Sets or (empty) removes the callback; returns the old one.
  Ref exchange(Ref callback) noexcept {
    return Ref::take(std::exchange(callback_, callback.release()));
  }
  // Calls the callback, in `target`, after a switch from `origin`. The event is "switch" or
  // "throw". If the callback raises, returns false with the exception set.
  bool call(const char* event, const Greenlet& origin, const Greenlet& target) const noexcept;

 private:
  PyObject* callback_ = nullptr;
};

}  // namespace greenlet::core
