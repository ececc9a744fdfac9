// Functions that a loaded program or library imports from another library. This is the contract;
// imports_linux.cpp implements it.
#pragma once

#include <atomic>

namespace greenlet::platform {

using Function = void (*)();

// From now on the program or library that contains `address` calls `function` where it called
// `name`, a function that it imports. Other libraries are left alone. The function that it called
// is stored into `old` before it can call the new one. Does nothing if it does not import `name`,
// or if the system does not allow the change. The import must be bound: it has been called before.
// A port may do nothing.
void replace_import(const void* address, const char* name, Function function,
                    std::atomic<Function>& old) noexcept;

}  // namespace greenlet::platform
