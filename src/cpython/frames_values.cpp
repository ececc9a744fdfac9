// What a suspended frame refers to on 3.11 to 3.13. Its values are plain pointers, and the frame
// knows how many are in use only if it waits for a Python function.
#include <Python.h>

#if PY_VERSION_HEX < 0x030e0000

#include "cpython/frames.h"
#include "cpython/internals.h"

namespace greenlet::cpython {
namespace {

// Visits the values before `end`, except for `unproven`, which may be null.
int visit_values(_PyInterpreterFrame* frame, PyObject* const* end, PyObject* const* unproven,
                 visitproc visit, void* arg) {
  for (PyObject** value = frame->localsplus; value < end; ++value) {
    if (value != unproven) {
      Py_VISIT(*value);
    }
  }
  return 0;
}

// Visits what the frame itself owns beside its values.
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

// If `operands` are those of the CALL that `frame` executes, its value stack is in use up to their
// end. The frame owns all of it except for the slot before the first argument that CALL passes.
// Returns this slot; null if the frame did not make that call.
//
// CALL lets its callee use that slot (PY_VECTORCALL_ARGUMENTS_OFFSET). A C function in between
// (functools.partial) may have put a reference there that it does not own, and may have called on
// with the same operands, or with one more or one less. CALL's argument is the number of operands
// without `self`.
PyObject* const* borrowed_by_callee(_PyInterpreterFrame* frame, const CallOperands& operands) {
  PyObject* const* const first = operands.begin;
  const PyCodeObject* const code = code_of(frame);
  PyObject* const* const stack = frame->localsplus + code->co_nlocalsplus;
  if (first < stack + 2 || operands.end > stack + code->co_stacksize ||
      operands.end - first != instruction_argument(frame)) {
    return nullptr;
  }
#if PY_VERSION_HEX >= 0x030d0000
  // [callable, self or null, operands...]. A callee that was called without `self` may have filled
  // its slot, but a method of ours does not.
  if (first[-1] == nullptr) {
    return first - 1;
  }
  return first[-2] != nullptr && Py_IS_TYPE(first[-2], &PyMethodDescr_Type) ? first - 2 : nullptr;
#else
  // [callable, self, operands...] or [null, callable, operands...]
  return first[-2] != nullptr ? first - 2 : first - 1;
#endif
}

}  // namespace

// Local variables and cells are exact at any moment. The value stack is exact if the interpreter
// has left the frame for a Python function that it runs itself. A frame that waits in a C call
// keeps its stack pointer in a register; it is known only for the frame that called us. What is not
// known is not visited, which can only leak.
int visit_frame(_PyInterpreterFrame* frame, const CallOperands& operands, visitproc visit,
                void* arg) noexcept {
  const bool left_for_python = frame->stacktop >= 0;
  PyObject* const* end = frame->localsplus + code_of(frame)->co_nlocalsplus;
  PyObject* const* unproven = nullptr;
  if (left_for_python) {
    end = frame->localsplus + frame->stacktop;
  } else if (operands.begin != nullptr) {
    unproven = borrowed_by_callee(frame, operands);
    end = unproven != nullptr ? operands.end : end;
  }
  if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
    // The generator's traversal visits its frame. It leaves out the values if the frame has not
    // been left for Python, because the generator then seems to be executing. Visit them here.
    return left_for_python ? 0 : visit_values(frame, end, unproven, visit, arg);
  }
  if (int stop = visit_specials(frame, visit, arg)) {
    return stop;
  }
  return visit_values(frame, end, unproven, visit, arg);
}

}  // namespace greenlet::cpython

#endif
