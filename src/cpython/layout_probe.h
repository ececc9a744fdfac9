// Checks of the layout by behaviour, for versions that do not tell it.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

#if PY_VERSION_HEX < 0x030d0000
// Puts the name of a field into `what` that is not where this build expects it; null if all that
// are looked for are in place. -1 with an exception if there is no memory.
int find_misplaced_field(const char*& what) noexcept;
#endif

}  // namespace greenlet::cpython
