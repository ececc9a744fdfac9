// The slow half of MonitoringVersion: instrumenting the frames of a stack. 3.15+.
#include <Python.h>

#if PY_VERSION_HEX >= 0x030f0000

#include "cpython/internals.h"
#include "cpython/stack_state.h"

#include <internal/pycore_ceval.h>

namespace greenlet::cpython {

static_assert(MonitoringVersion::kEventsMask == _PY_EVAL_EVENTS_MASK);

// When events change, CPython instruments the frames that threads run, and those of generators when
// they are resumed. It does not know of suspended stacks. (3.12 to 3.14 do not export the functions
// for this; there a frame follows with its next call.) _Py_Instrument() locks each code object.
void MonitoringVersion::catch_up(PyThreadState* tstate) const noexcept {
  if (!must_catch_up(tstate)) {
    return;
  }
  for (_PyInterpreterFrame* frame = tstate->current_frame; frame != nullptr;
       frame = frame->previous) {
    if (frame->owner >= FRAME_OWNED_BY_INTERPRETER) {
      continue;
    }
    PyCodeObject* const code = _PyFrame_GetCode(frame);
    // Code without events may be a constant in read-only memory, which cannot be locked:
    // _Py_InitCleanup, whose frame precedes that of an __init__.
    if ((code->co_flags & CO_NO_MONITORING_EVENTS) == 0 &&
        _Py_Instrument(code, tstate->interp) < 0) {
      PyErr_Clear();  // no memory: these frames' events are lost, as they would be without us
    }
  }
}

}  // namespace greenlet::cpython

#endif
