// Checks, at import, that the running interpreter has the structures this build was compiled for.
#pragma once

#include <Python.h>

#include <cstddef>

namespace greenlet::cpython {

// 0 if the layout is known to fit; else -1 with an ImportError that says what differs.
//
// CPython appends fields to PyThreadState within a released series (3.14.4 did), which moves all
// of _PyThreadStateImpl behind it. _PyRuntime.debug_offsets (3.13+) tells the true sizes.
int check_layout() noexcept;

// By how many bytes the running interpreter's PyThreadState is larger than the one compiled
// against; what follows it in _PyThreadStateImpl lies that much further on. Set by check_layout().
std::ptrdiff_t thread_state_shift() noexcept;

// Looks for what each thread counts of the references to heap types (free-threaded builds), for
// drop_type(): makes objects of `type`, which must do no harm, and sees whether the count is where
// it should be, or else near. -1 with MemoryError; 0 even if it is not found: drop_type() then does
// without.
int find_type_counts(PyTypeObject* type) noexcept;

// By how many bytes those counts follow the start of a thread state; 0 if they were not found.
std::ptrdiff_t type_counts_offset() noexcept;

}  // namespace greenlet::cpython
