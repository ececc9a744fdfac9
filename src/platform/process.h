// The process: its id, and fork(). POSIX; small enough to be inline, so another system has its own
// bodies here (a system without fork() does nothing in around_fork()).
#pragma once

#include <pthread.h>
#include <unistd.h>

namespace greenlet::platform {

inline pid_t process_id() noexcept { return getpid(); }

// From now on every fork() calls `before` first, and afterwards `after` in the parent and in the
// child. So a lock that `before` takes and `after` releases is free in the child, which has no
// other thread that could release it. Zero if that could be arranged.
inline int around_fork(void (*before)(), void (*after)()) noexcept {
  return pthread_atfork(before, after, after);
}

}  // namespace greenlet::platform
