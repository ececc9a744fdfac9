// Objects of the whole process that are used again and never freed.
#pragma once

#include <atomic>
#include <utility>

namespace greenlet::core {

// Holds objects that are not in use, linked by their member `Next`. Any thread of any interpreter
// may use it, under any GIL. It has no lock, because fork() could leave a lock held: threads of
// other interpreters do not wait for the thread that forks. A fork in the middle of take() may lose
// objects.
template <typename T, T* T::* Next>
class FreeList {
 public:
  // Takes an object; null if there is none.
  T* take() noexcept {
    // Takes the whole list. So no other thread can change the objects that it looks at.
    T* const first = head_.exchange(nullptr, std::memory_order_acquire);
    if (first == nullptr) {
      return nullptr;
    }
    T* rest = std::exchange(first->*Next, nullptr);
    T* none = nullptr;
    if (!head_.compare_exchange_strong(none, rest, std::memory_order_release,
                                       std::memory_order_relaxed)) {
      while (rest != nullptr) {  // other threads have put objects here in between
        T* const next = rest->*Next;
        put(rest);
        rest = next;
      }
    }
    return first;
  }

  void put(T* object) noexcept {
    object->*Next = head_.load(std::memory_order_relaxed);
    while (!head_.compare_exchange_weak(object->*Next, object, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<T*> head_{nullptr};
};

}  // namespace greenlet::core
