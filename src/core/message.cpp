// What becomes of a message when its target is known.
#include "core/message.h"

#include "cpython/errors.h"

namespace greenlet::core {

Message Message::from_current_exception() {
  return exception(Ref::take(cpython::take_exception()));
}

void Message::exit_to_value(PyObject* greenlet_exit) noexcept {
  if (raises_any(greenlet_exit)) {
    kind_ = Kind::kValueOrNothing;
  }
}

PyObject* Message::take_value() noexcept {
  if (kind_ != Kind::kCall) {
    return first_.release();
  }
  const bool has_keywords = second_ && PyDict_GET_SIZE(second_.get()) > 0;
  if (has_keywords) {
    if (PyTuple_GET_SIZE(first_.get()) == 0) {
      return second_.release();
    }
    return PyTuple_Pack(2, first_.get(), second_.get());
  }
  if (PyTuple_GET_SIZE(first_.get()) == 1) {
    return Py_NewRef(PyTuple_GET_ITEM(first_.get(), 0));
  }
  return first_.release();
}

Arguments Message::take_call(PyObject* empty_tuple) noexcept {
  if (kind_ == Kind::kValueOrNothing) {
    return {Ref::share(empty_tuple), {}, /*is_single=*/false};
  }
  return {std::move(first_), std::move(second_), /*is_single=*/kind_ == Kind::kValue};
}

}  // namespace greenlet::core
