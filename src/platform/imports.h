// Functions that a loaded program or library imports from another library. This is the contract;
// imports_linux.cpp implements it.
#pragma once

#include <atomic>

namespace greenlet::platform {

using Function = void (*)();

// Replaces the import `name` of the program or library that contains `address`: that code calls
// `function` from now on. Other libraries are left alone. The function that it called before is
// stored into `old` first. Does nothing if that code does not import `name`, or if the system does
// not allow the change. The import must be bound: it has been called before. A port may do nothing.
void replace_import(const void* address, const char* name, Function function,
                    std::atomic<Function>& old) noexcept;

}  // namespace greenlet::platform
