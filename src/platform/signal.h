// Signals by which a user asks for something. The contract; signal_posix.cpp implements it.
#pragma once

#include <cstddef>

namespace greenlet::platform {

// Called in a signal handler, in whatever thread the system has chosen: it may do only what is safe
// there, and takes no lock. errno is kept for it.
using SignalHook = void (*)(int descriptor) noexcept;

// From now on the signal calls the hook with this descriptor; with `chain`, the handler that the
// program had before is called afterwards. False with errno set for a signal that cannot be
// handled, or that a fault of the program raises. A second call for a signal changes hook and
// descriptor.
// Not for two threads at once.
bool watch_signal(int signal, SignalHook hook, int descriptor, bool chain) noexcept;
// Puts back the handler that the program had before, unless it has set another one since. False if
// the signal is not watched.
bool stop_watching_signal(int signal) noexcept;

// Writes all of it, or as much as can be written. Safe in a signal handler.
void write_all(int descriptor, const char* text, std::size_t length) noexcept;

}  // namespace greenlet::platform
