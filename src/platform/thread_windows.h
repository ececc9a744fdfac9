// What the switch for Windows asks of thread_windows.cpp, beside thread.h.
#pragma once

namespace greenlet::platform {

// Remembers the bounds of the stack that runs as those of the calling thread's own stack, unless
// some are remembered already. Call it before the first switch of the thread: while another stack
// runs, Windows does not tell these bounds.
void remember_own_stack() noexcept;

}  // namespace greenlet::platform
