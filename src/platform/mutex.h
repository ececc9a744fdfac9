// A lock for std::lock_guard.
#pragma once

#include <pthread.h>

namespace greenlet::platform {

// As std::mutex, whose lock() can throw: for that it needs libstdc++, which takes longer to load
// than all of greenlet.
class Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() noexcept { pthread_mutex_lock(&mutex_); }
  void unlock() noexcept { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

}  // namespace greenlet::platform
