// How the references that suspended frames own are found, by CPython version.
#include <algorithm>
#include <cstdint>
#include <utility>

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

void set_finalized(PyObject* object) {
#if PY_VERSION_HEX >= 0x030d0000
  _PyGC_SET_FINALIZED(object);
#else
  _PyGCHead_SET_FINALIZED(_Py_AS_GC(object));
#endif
}

#if PY_VERSION_HEX >= 0x030e0000

#if PY_VERSION_HEX >= 0x030f0000 && defined(Py_GIL_DISABLED)

int visit_stack_ref(_PyStackRef ref, visitproc visit, void* arg) {
  return PyStackRef_IsNullOrInt(ref) ? 0 : _PyGC_VisitStackRef(&ref, visit, arg);
}

int visit_values(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  return _PyGC_VisitFrameStack(frame, visit, arg);
}

#else

// As _PyGC_VisitStackRef(), which 3.14 does not export; inline, without a call for each value.
int visit_stack_ref(_PyStackRef ref, visitproc visit, void* arg) {
  if (PyStackRef_IsNullOrInt(ref)) {
    return 0;
  }
#ifdef Py_GIL_DISABLED
  // A deferred reference owns no count, so the two passes that subtract references from counts
  // (visit_decref, visit_decref_unreachable) must not see it; all others must, for it keeps its
  // object alive. Those two alone are called with a null argument (gc_free_threading.c).
  if (PyStackRef_IsDeferred(ref) && arg == nullptr) {
    return 0;
  }
#else
  // A reference that owns no count is borrowed from another place on the same stack, which is
  // visited, or immortal.
  if (!PyStackRef_RefcountOnObject(ref)) {
    return 0;
  }
#endif
  Py_VISIT(PyStackRef_AsPyObjectBorrow(ref));
  return 0;
}

int visit_values(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  // The end is null only while the interpreter is between two instructions' stack effects
  // (gh-129236); then how much of the stack is in use is unknown, and nothing more is visited.
  for (_PyStackRef* ref = frame->localsplus; ref < frame->stackpointer; ++ref) {
    if (int stop = visit_stack_ref(*ref, visit, arg)) {
      return stop;
    }
  }
  return 0;
}

#endif

#ifdef Py_GIL_DISABLED
// The object of a reference that owns no count; null if it does or there is none.
PyObject* uncounted(_PyStackRef ref) {
  if (PyStackRef_IsNullOrInt(ref)) {
    return nullptr;
  }
#if PY_VERSION_HEX >= 0x030f0000
  const bool is_counted = PyStackRef_RefcountOnObject(ref);
#else
  const bool is_counted = !PyStackRef_IsDeferred(ref);
#endif
  return is_counted ? nullptr : PyStackRef_AsPyObjectBorrow(ref);
}
#endif

int visit_frame(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  Py_VISIT(frame->frame_obj);
  Py_VISIT(frame->f_locals);
  if (int stop = visit_stack_ref(frame->f_funcobj, visit, arg)) {
    return stop;
  }
  if (int stop = visit_stack_ref(frame->f_executable, visit, arg)) {
    return stop;
  }
  return visit_values(frame, visit, arg);
}

#else

// Up to `end`, except for `unproven`, which may be null.
int visit_values(_PyInterpreterFrame* frame, PyObject* const* end, PyObject* const* unproven,
                 visitproc visit, void* arg) {
  for (PyObject** value = frame->localsplus; value < end; ++value) {
    if (value != unproven) {
      Py_VISIT(*value);
    }
  }
  return 0;
}

// What the frame itself owns beside its values.
int visit_specials(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  Py_VISIT(frame->frame_obj);
  Py_VISIT(frame->f_locals);
#if PY_VERSION_HEX >= 0x030d0000
  Py_VISIT(frame->f_executable);
  Py_VISIT(frame->f_funcobj);
#elif PY_VERSION_HEX >= 0x030c0000
  Py_VISIT(frame->f_code);
  Py_VISIT(frame->f_funcobj);
#else
  Py_VISIT(frame->f_code);
  Py_VISIT(frame->f_func);
#endif
  return 0;
}

// The argument of the instruction that a frame executes.
Py_ssize_t instruction_argument(_PyInterpreterFrame* frame) {
#if PY_VERSION_HEX >= 0x030d0000
  return frame->instr_ptr->op.arg;
#else
  return _Py_OPARG(*frame->prev_instr);
#endif
}

// If `operands` are those of the CALL that `frame` executes, all of its value stack up to their end
// is in use and owned by it, but for the slot before the first argument that CALL passes. Returns
// this slot, or null if it was not that call.
//
// CALL lets its callee use that slot (PY_VECTORCALL_ARGUMENTS_OFFSET): a C function in between
// (functools.partial) may have put a reference there that it does not own, and have called on with
// the same operands, with one more or one less. CALL's argument is the number of operands, save for
// `self`.
PyObject* const* borrowed_by_callee(_PyInterpreterFrame* frame, PyObject* const* operands,
                                    PyObject* const* operands_end) {
  const PyCodeObject* const code = code_of(frame);
  PyObject* const* const stack = frame->localsplus + code->co_nlocalsplus;
  if (operands < stack + 2 || operands_end > stack + code->co_stacksize ||
      operands_end - operands != instruction_argument(frame)) {
    return nullptr;
  }
#if PY_VERSION_HEX >= 0x030d0000
  // [callable, self or null, operands...]. A callee that was called without `self` may have filled
  // its slot, but a method of ours does not.
  if (operands[-1] == nullptr) {
    return operands - 1;
  }
  return operands[-2] != nullptr && Py_IS_TYPE(operands[-2], &PyMethodDescr_Type) ? operands - 2
                                                                                  : nullptr;
#else
  // [callable, self, operands...] or [null, callable, operands...]
  return operands[-2] != nullptr ? operands - 2 : operands - 1;
#endif
}

#endif

}  // namespace

_PyInterpreterFrame* StackState::innermost() const noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return frame_;
#else
  return cframe_ != nullptr ? cframe_->current_frame : nullptr;
#endif
}

void StackState::mark_generator(_PyInterpreterFrame* frame) const noexcept {
  was_visited_ = true;
  set_finalized(generator_of(frame));
}

void StackState::mark_generators() const noexcept {
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      mark_generator(frame);
    }
  }
}

void StackState::unmark_generators() noexcept {
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      allow_finalizer_again(generator_of(frame));
    }
  }
}

void StackState::unmark_those_left_alone() noexcept {
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      PyObject* const generator = generator_of(frame);
      if (is_being_collected(generator)) {
        was_visited_ = true;  // so that the next arrival asks again
      } else {
        allow_finalizer_again(generator);
      }
    }
  }
}

int StackState::visit_frames(visitproc visit, void* arg) const noexcept {
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    if (is_shim(frame)) {
      continue;
    }
#if PY_VERSION_HEX >= 0x030e0000
    if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
      mark_generator(frame);  // its own traversal visits the frame
    } else if (int stop = visit_frame(frame, visit, arg)) {
      return stop;
    }
#else
    // Local variables and cells are exact at any moment. The value stack is where the interpreter
    // has left the frame for a Python function that it runs itself; a frame that waits in a C call
    // keeps its stack pointer in a register, so of it only the one that called us is known. What
    // is not known is not visited: that can only leak.
    const bool left_for_python = frame->stacktop >= 0;
    PyObject* const* end = frame->localsplus + code_of(frame)->co_nlocalsplus;
    PyObject* const* unproven = nullptr;
    if (left_for_python) {
      end = frame->localsplus + frame->stacktop;
    } else if (frame == innermost()) {
      unproven = borrowed_by_callee(frame, operands_, operands_end_);
      end = unproven != nullptr ? operands_end_ : end;
    }
    const bool of_generator = frame->owner == FRAME_OWNED_BY_GENERATOR;
    if (of_generator) {
      mark_generator(frame);
    } else if (int stop = visit_specials(frame, visit, arg)) {
      return stop;
    }
    // A generator visits its frame, but no values if it seems to be executing (stacktop < 0).
    if (!of_generator || !left_for_python) {
      if (int stop = visit_values(frame, end, unproven, visit, arg)) {
        return stop;
      }
    }
#endif
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
  for (_PyInterpreterFrame* frame = innermost(); frame != nullptr; frame = frame->previous) {
    owners += static_cast<unsigned char>(frame->owner);
  }
  asm volatile("" ::"r"(owners));
}

int StackState::traverse(visitproc visit, void* arg) const noexcept {
#ifdef Py_GIL_DISABLED
  if (arg == nullptr) {
    was_visited_ = true;  // perhaps by a collection that finds it to be garbage; see catch_up()
  }
  // The passes that look for what is alive come with an argument, and counts may change in them.
  if (arg != nullptr && (hold_when_marked_ || !can_run_python(PyThreadState_GetUnchecked()))) {
    hold_when_marked_ = false;
    hold();
  }
  for (std::uint32_t i = 0; i < held_count_; ++i) {
    Py_VISIT(held_[i]);
  }
  for (auto* ref = static_cast<_PyCStackRef*>(c_stack_refs_); ref != nullptr; ref = ref->next) {
    if (int stop = visit_stack_ref(ref->ref, visit, arg)) {
      return stop;
    }
  }
#endif
  Py_VISIT(context_);
  Py_VISIT(exc_state_.exc_value);
  return visit_frames(visit, arg);
}

void StackState::hold() const noexcept {
#ifdef Py_GIL_DISABLED
  for (_PyInterpreterFrame* frame = frame_; frame != nullptr; frame = frame->previous) {
    if (is_shim(frame)) {
      continue;
    }
    hold(uncounted(frame->f_executable));
    hold(uncounted(frame->f_funcobj));
    for (_PyStackRef* ref = frame->localsplus; ref < frame->stackpointer; ++ref) {
      hold(uncounted(*ref));
    }
  }
  for (auto* ref = static_cast<_PyCStackRef*>(c_stack_refs_); ref != nullptr; ref = ref->next) {
    hold(uncounted(ref->ref));
  }
#endif
}

#ifdef Py_GIL_DISABLED
void StackState::hold(PyObject* object) const noexcept {
  if (object == nullptr || std::find(held_, held_ + held_count_, object) != held_ + held_count_) {
    return;
  }
  Py_INCREF(object);
  if (held_count_ == held_capacity_) {
    const std::uint32_t capacity = held_capacity_ == 0 ? 16 : held_capacity_ * 2;
    auto* const grown =
        static_cast<PyObject**>(PyMem_RawRealloc(held_, capacity * sizeof(PyObject*)));
    if (grown == nullptr) {
      return;  // it stays counted for ever
    }
    held_ = grown;
    held_capacity_ = capacity;
  }
  held_[held_count_++] = object;
}

void StackState::release_held_slowly() noexcept {
  PyObject** const held = std::exchange(held_, nullptr);
  const std::uint32_t count = std::exchange(held_count_, 0);
  held_capacity_ = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    Py_DECREF(held[i]);
  }
  PyMem_RawFree(held);
}
#endif

}  // namespace greenlet::cpython
