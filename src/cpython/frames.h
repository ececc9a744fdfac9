// What one suspended frame refers to. Two files implement this: frames_values.cpp for 3.11 to 3.13,
// frames_stackrefs.cpp for 3.14 and later. For the .cpp files of this room only.
#pragma once

#include <Python.h>

#include "cpython/held_references.h"
#include "cpython/stack_state.h"

struct _PyInterpreterFrame;

namespace greenlet::cpython {

// Visits the references that `frame` owns, except those that its generator's traversal visits.
// `operands` are those of the call that the frame waits in; null if unknown.
int visit_frame(_PyInterpreterFrame* frame, const CallOperands& operands, visitproc visit,
                void* arg) noexcept;

#ifdef Py_GIL_DISABLED
// Visits the C stack references in a list of _PyCStackRef.
int visit_c_stack_refs(void* first, visitproc visit, void* arg) noexcept;
// Adds the objects that a frame, or such a list, refers to without a count.
void hold_frame(_PyInterpreterFrame* frame, HeldReferences& held) noexcept;
void hold_c_stack_refs(void* first, HeldReferences& held) noexcept;
#endif

}  // namespace greenlet::cpython
