// The methods of StackState that walk over the frames of a suspended stack: traverse(), hold(),
// read_ahead(), and the marks on generators.
#include "cpython/frames.h"

#include "cpython/c_callers.h"
#include "cpython/gc_protocol.h"
#include "cpython/internals.h"
#include "cpython/stack_state.h"
#include "cpython/thread_states.h"

namespace greenlet::cpython {
namespace {

PyObject* generator_of(_PyInterpreterFrame* frame) {
#if PY_VERSION_HEX >= 0x030e0000
  return reinterpret_cast<PyObject*>(_PyGen_GetGeneratorFromFrame(frame));
#else
  return reinterpret_cast<PyObject*>(_PyFrame_GetGenerator(frame));
#endif
}

}  // namespace

void StackState::mark_generator(_PyInterpreterFrame* frame) noexcept {
  was_visited_by_collector_ = true;
  mark_finalized(generator_of(frame));
}

void StackState::mark_generators() noexcept {
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      mark_generator(frame);
    }
  }
}

void StackState::unmark_generators() noexcept {
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      allow_finalizer_again(generator_of(frame));
    }
  }
}

void StackState::unmark_generators_not_collected() noexcept {
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      PyObject* const generator = generator_of(frame);
      if (is_being_collected(generator)) {
        was_visited_by_collector_ = true;  // so that the next catch_up() asks again
      } else {
        allow_finalizer_again(generator);
      }
    }
  }
}

int StackState::visit_frames(visitproc visit, void* arg) noexcept {
  _PyInterpreterFrame* const innermost = fields_.innermost();
  for (_PyInterpreterFrame* frame = innermost; frame != nullptr; frame = frame->previous) {
    if (is_shim(frame)) {
      continue;
    }
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      mark_generator(frame);
    }
    if (int stop =
            visit_frame(frame, frame == innermost ? operands_ : CallOperands{}, visit, arg)) {
      return stop;
    }
    if (_PyInterpreterFrame* const caller = caller_through_c(frame)) {
      if (int stop = visit_c_caller(frame, caller, visit, arg)) {
        return stop;
      }
    }
  }
  return 0;
}

void StackState::read_ahead() const noexcept {
  unsigned owners = 0;
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    owners += static_cast<unsigned char>(frame->owner);
  }
  asm volatile("" ::"r"(owners));
}

int StackState::traverse(visitproc visit, void* arg) noexcept {
#ifdef Py_GIL_DISABLED
  if (subtracts_counts(arg)) {
    was_visited_by_collector_ = true;  // the collection may find the greenlet to be garbage
  } else if (held_.is_requested() || !can_run_python(PyThreadState_GetUnchecked())) {
    held_.settle_request();
    hold();  // counts may change in this pass
  }
  if (int stop = held_.traverse(visit, arg)) {
    return stop;
  }
  if (int stop = visit_c_stack_refs(fields_.c_stack_refs, visit, arg)) {
    return stop;
  }
#endif
  Py_VISIT(fields_.context);
  Py_VISIT(exc_state_.exc_value);
  return visit_frames(visit, arg);
}

void StackState::hold() noexcept {
#ifdef Py_GIL_DISABLED
  for (_PyInterpreterFrame* frame = fields_.innermost(); frame != nullptr;
       frame = frame->previous) {
    if (!is_shim(frame)) {
      hold_frame(frame, held_);
    }
  }
  hold_c_stack_refs(fields_.c_stack_refs, held_);
#endif
}

}  // namespace greenlet::cpython
