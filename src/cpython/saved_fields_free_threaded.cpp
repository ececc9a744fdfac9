// The slow half of critical sections: suspending and resuming them, by internal functions.
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

}  // namespace greenlet::cpython

#endif
