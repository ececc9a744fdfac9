// Checks of the layout by behaviour, for versions that do not tell their layout (3.11 and 3.12).
#pragma once

#include <Python.h>

namespace greenlet::cpython {

#if PY_VERSION_HEX < 0x030d0000
// Sets `what` to the name of a field that is not where this build expects it; to null if all fields
// that can be checked are in place. -1 with an exception if there is no memory.
int find_misplaced_field(const char*& what) noexcept;
#endif

}  // namespace greenlet::cpython
