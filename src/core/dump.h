// All greenlets of the process as text, in a signal handler: greenlet.inspect.dump_on_signal().
#pragma once

namespace greenlet::core {

// Writes the greenlets of all threads, of all interpreters, with their frames, to a file
// descriptor. Needs no thread state, no GIL and no memory, and waits for nobody; so it works while
// a thread hangs in C. Other threads go on meanwhile, so that what they change at this moment may
// be shown wrong.
void dump_greenlets(int descriptor) noexcept;

}  // namespace greenlet::core
