// Signals on Windows: it has none that a user sends to a process, except for Ctrl-C and Ctrl-Break.
#include "platform/signal.h"

#include <io.h>

#include <cerrno>

namespace greenlet::platform {

bool watch_signal(int, SignalHook, int, bool) noexcept {
  errno = ENOSYS;
  return false;
}

bool stop_watching_signal(int) noexcept { return false; }

void write_all(int descriptor, const char* text, std::size_t length) noexcept {
  while (length != 0) {
    const int written = _write(descriptor, text, static_cast<unsigned>(length));
    if (written <= 0) {
      return;
    }
    text += written;
    length -= static_cast<std::size_t>(written);
  }
}

}  // namespace greenlet::platform
