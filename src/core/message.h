// What one greenlet sends another: a value, the arguments of a call, or an exception.
#pragma once

#include "core/ref.h"

namespace greenlet::core {

// The arguments of a call. A single one, the usual case, has no tuple: the collector would have to
// visit a tuple for each greenlet.
struct Arguments {
  Ref args;    // the argument if `is_single`, else a tuple
  Ref kwargs;  // a dict or null
  bool is_single = false;
};

// A message on its way between greenlets. The state of the target decides later what becomes of it.
// A target that waits in switch() receives one value. A target that has not started is called with
// the arguments. A dead target hands the message on.
class Message {
 public:
  static Message value(Ref value) { return {Kind::kValue, std::move(value), {}}; }
  // `args` is a tuple; `kwargs` a dict or null.
  static Message call(Ref args, Ref kwargs) {
    return {Kind::kCall, std::move(args), std::move(kwargs)};
  }
  static Message of(Arguments arguments) {
    return arguments.is_single ? value(std::move(arguments.args))
                               : call(std::move(arguments.args), std::move(arguments.kwargs));
  }
  // A value for a target that waits in switch(). A target that has not started gets no arguments.
  static Message value_or_nothing(Ref value) {
    return {Kind::kValueOrNothing, std::move(value), {}};
  }
  // An exception that is raised in the target.
  static Message exception(Ref exception) { return {Kind::kRaise, std::move(exception), {}}; }
  // The exception that is set, taken from the thread state.
  static Message from_current_exception();

  bool raises() const noexcept { return kind_ == Kind::kRaise; }
  // True if it raises an instance of the exception class `type`.
  bool raises_any(PyObject* type) const noexcept {
    return raises() && PyErr_GivenExceptionMatches(first_.get(), type) != 0;
  }

  // A GreenletExit becomes a value_or_nothing(): there is no greenlet left for it to kill.
  void exit_to_value(PyObject* greenlet_exit) noexcept;

  // What switch() returns for it, a new reference. For the arguments of a call that is the single
  // argument, the tuple, the dict, or a pair of both. Null with an exception set if memory runs
  // out. Not if raises().
  PyObject* take_value() noexcept;
  // The arguments of a call, moved out. Not if raises().
  Arguments take_call(PyObject* empty_tuple) noexcept;
  // The inverse of take_call().
  void put_back(Arguments arguments) noexcept {
    if (kind_ != Kind::kValueOrNothing) {  // of that kind, take_call() moves nothing out
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
