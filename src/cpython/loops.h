// Whether code that runs now will come to an end, as far as its bytecode tells.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// True if a frame of the calling thread's current stack is in front of a `while` loop that it would
// go round or come to, once what it does now is done. Loops of `for` and `await` are taken to end,
// and what C code does next is not known. Takes memory; true if there is none.
bool has_loop_ahead() noexcept;

// The same of the frame that handles `exception`, the one that is being handled now, and of its
// callers, if that frame comes to the end of its except clause without raising anything, and
// nothing that it has called needs to go on: it holds no lock by `with`, and has no `finally` block
// before it. False if the exception was not caught on the current stack.
bool has_loop_after_handling(PyObject* exception) noexcept;

}  // namespace greenlet::cpython
