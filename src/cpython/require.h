// Checks that release builds make, too.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// Ends the process with a sentence if `condition` does not hold. For conditions without which the
// code that follows would corrupt memory. Not for the fast path of a switch.
inline void require(bool condition, const char* broken) noexcept {
  if (!condition) [[unlikely]] {
    Py_FatalError(broken);
  }
}

}  // namespace greenlet::cpython
