// Whether code that runs now will come to an end, as far as its bytecode tells.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// True if a frame of the calling thread's current stack is in front of a `while` loop that it would
// go round or come to, once what it does now is done. Loops of `for` and `await` are taken to end,
// and what C code does next is not known. Takes memory; true if there is none.
bool has_loop_ahead() noexcept;

// The same of the frame that handles `exception` now, and its callers, if that frame comes to the
// end of its except clause without raising anything. Other frames, as of code that reports the
// exception, do not count. False if the exception is not being handled on the current stack.
bool has_loop_after_handling(PyObject* exception) noexcept;

}  // namespace greenlet::cpython
