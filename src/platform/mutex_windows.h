// A lock for std::lock_guard on Windows: see mutex.h. thread_windows.cpp implements it.
#pragma once

namespace greenlet::platform {

// A slim reader/writer lock, which is one word. The word is no SRWLOCK here, because windows.h
// defines thousands of macros.
class Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() noexcept;
  bool try_lock() noexcept;
  void unlock() noexcept;

 private:
  void* word_ = nullptr;
};

}  // namespace greenlet::platform
