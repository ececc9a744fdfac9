// What the switch for Windows asks of thread_windows.cpp, beside thread.h.
#pragma once

namespace greenlet::platform {

// Remembers the bounds of the stack that runs as those of the calling thread's own stack, unless
// some are remembered already. To be called before the first switch of the thread, as Windows does
// not tell them when another stack runs.
void remember_own_stack() noexcept;

}  // namespace greenlet::platform
