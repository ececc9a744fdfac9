// Checks, at import, that the running interpreter has the structures this build was compiled for,
// and finds the ones that may have moved.
#pragma once

#include <Python.h>

#include <cstddef>

namespace greenlet::cpython {

// 0 if the layout is known to fit; else -1 with an ImportError that says what differs.
//
// CPython appends fields to PyThreadState within a released series (3.14.4 did). This moves the
// rest of _PyThreadStateImpl, which lies behind it. _PyRuntime.debug_offsets (3.13+) tells the
// sizes that the running interpreter has; for 3.11 and 3.12 see layout_probe.h.
int check_layout() noexcept;

// By how many bytes the running interpreter's PyThreadState is larger than in the headers of this
// build. The fields behind it in _PyThreadStateImpl are moved by as many. Set by check_layout().
std::ptrdiff_t thread_state_shift() noexcept;

// Finds the table in which a thread counts its references to heap types, for drop_type()
// (free-threaded builds). Makes objects of `type`, which must have no side effects, and looks for
// the count that grows, where the table should be and then near there. -1 with MemoryError; 0 also
// if the table is not found: drop_type() then does without.
int find_type_counts(PyTypeObject* type) noexcept;

// The offset of that table in a thread state; 0 if it was not found.
std::ptrdiff_t type_counts_offset() noexcept;

}  // namespace greenlet::cpython
