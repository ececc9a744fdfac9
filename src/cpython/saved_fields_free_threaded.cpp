// The slow half of critical sections and C stack references, by internal functions and structures.
#include "cpython/saved_fields_free_threaded.h"

#ifdef Py_GIL_DISABLED

#include "cpython/internals.h"

namespace greenlet::cpython {

static_assert(CriticalSection::kInactive == _Py_CRITICAL_SECTION_INACTIVE);

void CriticalSection::suspend_all(PyThreadState* tstate) noexcept {
  _PyCriticalSection_SuspendAll(tstate);
}

void CriticalSection::catch_up(PyThreadState* tstate) noexcept {
  if ((tstate->critical_section & kInactive) != 0) {
    _PyCriticalSection_Resume(tstate);
  }
}

void CStackRefs::relocate(const Relocation& moved) noexcept {
  c_stack_refs = moved(c_stack_refs);
  for (auto* ref = static_cast<_PyCStackRef*>(c_stack_refs); ref != nullptr; ref = ref->next) {
    ref->next = moved(ref->next);
  }
}

}  // namespace greenlet::cpython

#endif
