// Stopping the world, by functions of internal headers.
#include "cpython/locks.h"

#include "cpython/internals.h"

namespace greenlet::cpython {

StoppedWorld::StoppedWorld() noexcept {
#ifdef Py_GIL_DISABLED
  _PyEval_StopTheWorld(PyInterpreterState_Get());
#endif
}

// NOLINTNEXTLINE(modernize-use-equals-default): the body is empty in some builds only
StoppedWorld::~StoppedWorld() {
#ifdef Py_GIL_DISABLED
  _PyEval_StartTheWorld(PyInterpreterState_Get());
#endif
}

}  // namespace greenlet::cpython
