// A lock for std::lock_guard. POSIX; small enough to be inline, so another system has its own body
// here.
#pragma once

#if defined(_WIN32)
#include "platform/mutex_windows.h"  // IWYU pragma: export
#else

#include <pthread.h>

namespace greenlet::platform {

// Like std::mutex. But std::mutex::lock() can throw and therefore needs libstdc++, and loading that
// takes longer than loading all of greenlet.
class Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() noexcept { pthread_mutex_lock(&mutex_); }
  // Takes the lock if it is free. A signal handler may do so. (In thread_linux.cpp, with the
  // version of the function that every glibc has.)
  bool try_lock() noexcept;
  void unlock() noexcept { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

}  // namespace greenlet::platform

#endif
