// What becomes of a greenlet that is garbage, or whose last reference is dropped: the slots
// tp_traverse, tp_finalize, tp_clear and tp_dealloc of greenlet.greenlet, which module/ puts into
// its table.
//
// A collection goes as follows (docs/internals/architecture.md, section Collection, has the
// passes). cpython::pass_of() tells the passes apart.
//
//   count     traverse_greenlet() visits what the greenlet and its suspended stack own, and makes
//             CPython ready to finalize the greenlet again if it has survived a finalization.
//   finalize  finalize_greenlet() kills a greenlet of the calling thread. It only notes another
//             thread's greenlet: the owner would unwind it while this collection still finalizes,
//             in its own thread, the generators that the greenlet resumes.
//   recount   traverse_greenlet() hands the noted greenlets over to their owners, and counts each
//             greenlet that is still suspended as used. So nothing that it refers to is cleared.
//   clear     clear_greenlet() clears greenlets that are not suspended. Suspended ones keep all.
#pragma once

#include <Python.h>

#include "core/module_state.h"

namespace greenlet::core {

int traverse_greenlet(PyObject* self, visitproc visit, void* arg) noexcept;
void finalize_greenlet(PyObject* self) noexcept;
int clear_greenlet(PyObject* self) noexcept;
void deallocate_greenlet(PyObject* self) noexcept;

// Call it before an instance of `type` can be suspended. If the class defines __del__, which then
// stands in the place of our finalizer, it gets a finalizer that calls both.
void adopt_finalizer(PyTypeObject* type, const ModuleState& module) noexcept;

}  // namespace greenlet::core
