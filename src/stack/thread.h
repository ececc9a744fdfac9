// The stack that the system has given the calling thread, as opposed to those made here.
#pragma once

#include <cstddef>

namespace greenlet::stack {

// True if `address` lies on the calling thread's own stack, and also where the C library does not
// know the bounds of that. The first call in a thread may read a file.
bool is_on_own_stack(const std::byte* address) noexcept;

}  // namespace greenlet::stack
