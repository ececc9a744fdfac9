// Imports on systems where nothing is replaced. On Windows nothing has to be: CPython asks Windows
// for the bounds of the stack, Windows answers from the thread's block (TEB), and a switch changes
// that. On macOS a thread state that is made in a greenlet has the right bounds from its first
// frame on (cpython/stack_bounds.cpp).
#include "platform/imports.h"

namespace greenlet::platform {

void replace_import(const void*, const char*, Function, std::atomic<Function>&) noexcept {}

}  // namespace greenlet::platform
