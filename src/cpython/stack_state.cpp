// The slow half of StackState: start, finish, abandon, catching up. The walks are in frames.cpp.
#include "cpython/stack_state.h"

#include <utility>

#include "cpython/gc_protocol.h"
#include "cpython/internals.h"

namespace greenlet::cpython {

void StackState::start(PyThreadState* tstate, const ImplFields& impl, const std::byte* stack_low,
                       std::byte* data, std::size_t data_bytes) noexcept {
  was_visited_by_collector_ = false;
  exc_state_ = {};
  fields_.start({.tstate = tstate,
                 .impl = impl,
                 .low = stack_low,
                 .data = data,
                 .data_bytes = data_bytes,
                 .handled = &exc_state_});
}

void StackState::finish() noexcept {
  fields_.finish();
  exc_state_ = {};
}

void StackState::finish_running(PyThreadState* tstate) noexcept {
  finish();
  fields_.context = tstate->context;
}

void StackState::abandon(const ImplFields& impl) noexcept {
  hold();
  mark_generators();
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (frame->previous == impl.base_frame) {
      frame->previous = nullptr;  // part of the thread state; someone may hold a frame object
    }
  }
  finish();
}

PyObject* StackState::exchange_context_variables(PyObject* context) noexcept {
  return std::exchange(fields_.context, context);
}

PyObject* exchange_running_context_variables(PyThreadState* tstate, PyObject* context) noexcept {
  ++tstate->context_ver;
  return std::exchange(tstate->context, context);
}

void StackState::finish_deallocations([[maybe_unused]] PyThreadState* tstate) noexcept {
  // Before 3.13 deallocations are put off within others, and all are done when the outermost ends.
#if PY_VERSION_HEX >= 0x030D0000
  if (tstate->delete_later != nullptr) [[unlikely]] {
    _PyTrash_thread_destroy_chain(tstate);
  }
#endif
}

void StackState::clear_handled_exception(PyThreadState* tstate) noexcept {
  PyObject* const handled = std::exchange(tstate->exc_info->exc_value, nullptr);
  Py_XDECREF(handled);
}

void StackState::catch_up(PyThreadState* tstate, PyObject* owner) noexcept {
  if (was_visited_by_collector_) {
    was_visited_by_collector_ = false;
    // This comes first: as long as this thread cannot be stopped, the collection holds what it has
    // found.
    if (is_being_collected(owner)) {
      hold();
    }
    unmark_generators_not_collected();
  }
  // Critical sections come before anything else that opens one: CPython would take the lock of this
  // one for held (_PyCriticalSection_BeginSlow()), and resume this one when it closes the other.
  fields_.catch_up(tstate);
}

}  // namespace greenlet::cpython
