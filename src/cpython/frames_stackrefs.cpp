// What a suspended frame refers to on 3.14 and later. Its values are stack references
// (_PyStackRef), and the frame knows at any call how many are in use.
#include <Python.h>

#if PY_VERSION_HEX >= 0x030e0000

#include <opcode_ids.h>

#include "cpython/frames.h"
#include "cpython/gc_protocol.h"
#include "cpython/internals.h"

namespace greenlet::cpython {
namespace {

// --- references that an instruction has given away ----------------------------------------------
//
// A few instructions pass on a reference that the frame owns, and then drop something else, before
// the frame forgets the slot (PyStackRef_AsPyObjectSteal() in Python/bytecodes.c). What is dropped
// may have a finalizer, and that may leave the greenlet. So while one of these instructions is
// under way, the frame may own the references in its slots or not; only a reference that owns no
// count is still the frame's in any case.

// The instruction that the frame is in the middle of, without what tools have put over it. Code is
// shared: it may be specialized in another way by now.
int current_opcode(_PyInterpreterFrame* frame) {
  int opcode = frame->instr_ptr->op.code;
  if (opcode == INSTRUMENTED_LINE || opcode == INSTRUMENTED_INSTRUCTION) {
    const _PyCoMonitoringData* const tools = code_of(frame)->_co_monitoring;
    const auto index = frame->instr_ptr - _PyFrame_GetBytecode(frame);
    if (opcode == INSTRUMENTED_LINE) {
      opcode = tools->lines->data[index * tools->lines->bytes_per_entry];
    }
    if (opcode == INSTRUMENTED_INSTRUCTION) {
      opcode = tools->per_instruction_opcodes[index];
    }
  }
  return opcode;
}

// True if an assignment to an item of this object may be the specialized one for dicts.
bool is_stored_into_as_dict(PyObject* object) {
  const PyMappingMethods* const mapping = Py_TYPE(object)->tp_as_mapping;
  return mapping != nullptr &&
         mapping->mp_ass_subscript == PyDict_Type.tp_as_mapping->mp_ass_subscript;
}

// The operands, from the top of the stack, that an instruction may give away: a bit for each, the
// lowest for the topmost.
unsigned operands_given_away(int opcode) {
  switch (opcode) {
    case STORE_DEREF:  // PyCell_SetTakeRef() drops what the cell had
    case SET_ADD:      // _PySet_AddTakeRef() drops the item if an equal one is there
      return 0b1;
    case MAP_ADD:  // _PyDict_SetItem_Take2() drops the old value, or the key
      return 0b11;
    case STORE_SUBSCR:  // the same, if it was specialized for dicts: [value, container, key]
    case STORE_SUBSCR_DICT:
    case STORE_SUBSCR_LIST_INT:
      return 0b101;
    default:
      return 0;
  }
}

// A bit for each slot that may have been given away: the lowest for the slot on top of the stack.
//
// The instruction may be over: if it has raised an exception, its operands are off the stack, and
// when that leaves the frame, there is nothing on the stack, and below it are the variables.
unsigned slots_given_away(_PyInterpreterFrame* frame) {
  const unsigned operands = operands_given_away(current_opcode(frame));
  if (operands == 0) [[likely]] {
    return 0;
  }
  const auto on_stack = frame->stackpointer - _PyFrame_Stackbase(frame);
  if (operands == 0b101 && on_stack >= 3) {
    const _PyStackRef container = frame->stackpointer[-2];
    return PyStackRef_IsNullOrInt(container) ||
                   is_stored_into_as_dict(PyStackRef_AsPyObjectBorrow(container))
               ? operands
               : 0;
  }
  return on_stack >= 3 ? operands : operands & ((1U << on_stack) - 1);
}

bool owns_count(_PyStackRef ref) {
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030f0000
  return !PyStackRef_IsNullOrInt(ref) && !PyStackRef_IsDeferred(ref);
#else
  return !PyStackRef_IsNullOrInt(ref) && PyStackRef_RefcountOnObject(ref);
#endif
}

// --- visits -------------------------------------------------------------------------------------

#if PY_VERSION_HEX >= 0x030f0000 && defined(Py_GIL_DISABLED)

int visit_stack_ref(_PyStackRef ref, visitproc visit, void* arg) {
  return PyStackRef_IsNullOrInt(ref) ? 0 : _PyGC_VisitStackRef(&ref, visit, arg);
}

#else

// As _PyGC_VisitStackRef(), which 3.14 does not export; inline, without a call for each value.
int visit_stack_ref(_PyStackRef ref, visitproc visit, void* arg) {
  if (PyStackRef_IsNullOrInt(ref)) {
    return 0;
  }
#ifdef Py_GIL_DISABLED
  // A deferred reference owns no count, so the passes that subtract references from counts must not
  // see it. All other passes must, because it keeps its object alive.
  if (PyStackRef_IsDeferred(ref) && subtracts_counts(arg)) {
    return 0;
  }
#else
  // A reference that owns no count is borrowed from another place on the same stack, which is
  // visited, or its object is immortal.
  if (!PyStackRef_RefcountOnObject(ref)) {
    return 0;
  }
#endif
  Py_VISIT(PyStackRef_AsPyObjectBorrow(ref));
  return 0;
}

#endif

int visit_values(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  // The end is null only while the interpreter is between two instructions' stack effects
  // (gh-129236). Then nobody knows how much of the stack is in use, and nothing is visited.
  _PyStackRef* const end = frame->stackpointer;
  if (end == nullptr) {
    return 0;
  }
  const unsigned given_away = slots_given_away(frame);
  for (_PyStackRef* ref = frame->localsplus; ref < end; ++ref) {
    if (given_away != 0 && end - ref <= 3 && (given_away >> (end - ref - 1) & 1U) != 0 &&
        owns_count(*ref)) [[unlikely]] {
      continue;  // perhaps not the frame's any more: not to visit it can only leak
    }
    if (int stop = visit_stack_ref(*ref, visit, arg)) {
      return stop;
    }
  }
  return 0;
}

#ifdef Py_GIL_DISABLED
// The object of a reference that owns no count; null if the reference owns one or is null.
PyObject* uncounted(_PyStackRef ref) {
  return PyStackRef_IsNullOrInt(ref) || owns_count(ref) ? nullptr
                                                        : PyStackRef_AsPyObjectBorrow(ref);
}
#endif

}  // namespace

int visit_frame(_PyInterpreterFrame* frame, const CallOperands&, visitproc visit,
                void* arg) noexcept {
  if (frame->owner == FRAME_OWNED_BY_GENERATOR) {
    return 0;  // the generator's traversal visits all of it
  }
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

#ifdef Py_GIL_DISABLED

int visit_c_stack_refs(void* first, visitproc visit, void* arg) noexcept {
  for (auto* ref = static_cast<_PyCStackRef*>(first); ref != nullptr; ref = ref->next) {
    if (int stop = visit_stack_ref(ref->ref, visit, arg)) {
      return stop;
    }
  }
  return 0;
}

void hold_frame(_PyInterpreterFrame* frame, HeldReferences& held) noexcept {
  held.add(uncounted(frame->f_executable));
  held.add(uncounted(frame->f_funcobj));
  for (_PyStackRef* ref = frame->localsplus; ref < frame->stackpointer; ++ref) {
    held.add(uncounted(*ref));
  }
}

void hold_c_stack_refs(void* first, HeldReferences& held) noexcept {
  for (auto* ref = static_cast<_PyCStackRef*>(first); ref != nullptr; ref = ref->next) {
    held.add(uncounted(ref->ref));
  }
}

#endif

}  // namespace greenlet::cpython

#endif
