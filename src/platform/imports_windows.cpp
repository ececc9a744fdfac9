// Imports on Windows. Nothing has to be replaced: CPython asks Windows for the bounds of the stack,
// Windows answers from the thread's block (TEB), and a switch changes that.
#include "platform/imports.h"

namespace greenlet::platform {

void replace_import(const void*, const char*, Function, std::atomic<Function>&) noexcept {}

}  // namespace greenlet::platform
