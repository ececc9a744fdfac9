// The stack that the system has given the calling thread, as opposed to those that stack/ makes.
// The contract; thread_linux.cpp implements it. A port must implement all of it.
#pragma once

#include <cstddef>

namespace greenlet::platform {

// True for the main thread of the process: its stack may grow as far as the limit RLIMIT_STACK says
// at the moment. Always false on a system where no thread has such a stack. Two system calls.
bool is_main_thread() noexcept;

// Bytes of the calling thread's own stack: what recursion may use up in it. Zero if the stack has
// no limit, or if the system does not know. May leave out the guard of the stack.
std::size_t thread_stack_bytes() noexcept;

// True if `address` lies on the calling thread's own stack, and also if the system does not know
// where that lies. The first call in a thread may read a file.
bool is_on_own_stack(const std::byte* address) noexcept;

}  // namespace greenlet::platform
