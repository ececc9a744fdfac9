// The libraries (DLLs) of the process, on Windows. libraries_windows.cpp implements it.
#pragma once

#include <atomic>
#include <cstdint>

#include "platform/imports.h"

namespace greenlet::platform {

// How many libraries were loaded since the first call of count_libraries().
extern constinit std::atomic<std::uint32_t> libraries_loaded;
// Lets the system count from now on. Later calls do nothing.
void count_libraries() noexcept;

// A function that a library exports. The library then stays for the life of the process. Null if
// the library is not loaded, or has no such function.
Function find_function(const char* library, const char* name) noexcept;
// The same in any library that is loaded: the first that has it.
Function find_function(const char* name) noexcept;

}  // namespace greenlet::platform
