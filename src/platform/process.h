// The process: its id, its threads' ids, its stderr, and fork(). Small enough to be inline, so
// another system has its own bodies here (without fork(), around_fork() does nothing).
#pragma once

#if defined(_WIN32)
#include "platform/process_windows.h"  // IWYU pragma: export
#else

#include <pthread.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#if !defined(__APPLE__)
#include <sys/syscall.h>
#endif

namespace greenlet::platform {

inline pid_t process_id() noexcept { return getpid(); }

// The system's number for the calling thread, as debuggers and threading.get_native_id() show it.
inline std::size_t thread_id() noexcept {
#if defined(__APPLE__)
  std::uint64_t id = 0;
  pthread_threadid_np(nullptr, &id);
  return id;
#else
  return static_cast<std::size_t>(syscall(SYS_gettid));
#endif
}

// Safe in a signal handler.
inline void write_to_stderr(const char* text, std::size_t length) noexcept {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, length);
}

// From now on every fork() calls `before` first, and afterwards `after` in the parent and in the
// child. So a lock that `before` takes and `after` releases is free in the child, which has no
// other thread that could release it. Zero if that could be arranged.
inline int around_fork(void (*before)(), void (*after)()) noexcept {
  return pthread_atfork(before, after, after);
}

}  // namespace greenlet::platform

#endif
