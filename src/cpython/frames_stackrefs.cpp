// What a suspended frame refers to on 3.14 and later. Its values are stack references
// (_PyStackRef), and the frame knows at any call how many are in use.
#include <Python.h>

#if PY_VERSION_HEX >= 0x030e0000

#include "cpython/frames.h"
#include "cpython/gc_protocol.h"
#include "cpython/internals.h"

namespace greenlet::cpython {
namespace {

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

int visit_values(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
  // The end is null only while the interpreter is between two instructions' stack effects
  // (gh-129236). Then nobody knows how much of the stack is in use, and nothing is visited.
  for (_PyStackRef* ref = frame->localsplus; ref < frame->stackpointer; ++ref) {
    if (int stop = visit_stack_ref(*ref, visit, arg)) {
      return stop;
    }
  }
  return 0;
}

#endif

#ifdef Py_GIL_DISABLED
// The object of a reference that owns no count; null if the reference owns one or is null.
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
