// What one greenlet sends another: a value, the arguments of a call, or an exception.
#pragma once

#include "core/ref.h"

namespace greenlet::core {

// The arguments of a call. One alone, the usual case, needs no tuple: the collector would have to
// look through one for each greenlet.
struct Arguments {
  Ref args;    // the argument if `is_one`, else a tuple
  Ref kwargs;  // a dict or null
  bool is_one = false;
};

// On its way between greenlets, before it is known whether the target waits in switch() (wants one
// value), has not started (wants arguments) or is dead (hands it on).
class Message {
 public:
  static Message value(Ref value) { return {Kind::kValue, std::move(value), {}}; }
  // `args` is a tuple; `kwargs` a dict or null.
  static Message call(Ref args, Ref kwargs) {
    return {Kind::kCall, std::move(args), std::move(kwargs)};
  }
  static Message of(Arguments arguments) {
    return arguments.is_one ? value(std::move(arguments.args))
                            : call(std::move(arguments.args), std::move(arguments.kwargs));
  }
  // The value that switch() returns. A greenlet that has not started gets no argument.
  static Message value_or_nothing(Ref value) {
    return {Kind::kValueOrNothing, std::move(value), {}};
  }
  static Message raise(Ref exception) { return {Kind::kRaise, std::move(exception), {}}; }
  // The exception that is set, taken from the thread state.
  static Message raise_current();

  bool raises() const noexcept { return kind_ == Kind::kRaise; }
  // True if it raises an instance of the exception class `type`.
  bool raises_any(PyObject* type) const noexcept {
    return raises() && PyErr_GivenExceptionMatches(first_.get(), type) != 0;
  }

  // A GreenletExit becomes a value_or_nothing() where nothing is left for it to end.
  void settle_exit(PyObject* greenlet_exit) noexcept;

  // What switch() returns for it, a new reference: of a call's arguments the only one, the tuple,
  // the dict, or both. Null (with the exception set) if memory runs out. Not for raises().
  PyObject* take_value() noexcept;
  // As the arguments of a call, moved out. Not for raises().
  Arguments take_call(PyObject* empty_tuple) noexcept;
  // Takes back what take_call() has returned.
  void put_back(Arguments arguments) noexcept {
    if (kind_ != Kind::kValueOrNothing) {  // that one was not moved out
      *this = of(std::move(arguments));
    }
  }
  // The exception, moved out. Only if raises().
  PyObject* take_exception() noexcept { return first_.release(); }

 private:
  enum class Kind : unsigned char { kValue, kCall, kRaise, kValueOrNothing };

  Message(Kind kind, Ref first, Ref second)
      : kind_(kind), first_(std::move(first)), second_(std::move(second)) {}

  Kind kind_;
  Ref first_;   // the value, the tuple of arguments, or the exception
  Ref second_;  // keyword arguments
};

}  // namespace greenlet::core
