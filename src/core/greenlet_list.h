// The greenlets of one thread that have a stack, as an intrusive list.
#pragma once

#include <cstddef>

#include "core/greenlet.h"

namespace greenlet::core {

// Linked by Greenlet::next_ and previous_; owns no references. The oldest greenlet comes first, so
// that the end of the thread kills greenlets in the order in which they were started. The owner
// thread alone changes it; others read it while the world is stopped.
class GreenletList {
 public:
  class Iterator {
   public:
    explicit Iterator(Greenlet* at) noexcept : at_(at) {}
    Greenlet& operator*() const noexcept { return *at_; }
    Iterator& operator++() noexcept {
      at_ = at_->next_;
      return *this;
    }
    bool operator==(const Iterator&) const = default;

   private:
    Greenlet* at_;
  };
  Iterator begin() const noexcept { return Iterator(first_); }
  Iterator end() const noexcept { return Iterator(nullptr); }

  bool is_empty() const noexcept { return first_ == nullptr; }
  std::size_t size() const noexcept { return size_; }
  Greenlet* first() const noexcept { return first_; }
  static Greenlet* after(const Greenlet& greenlet) noexcept { return greenlet.next_; }
  // The one before it; of the first one the last.
  static Greenlet* before(const Greenlet& greenlet) noexcept { return greenlet.previous_; }

  void append(Greenlet& greenlet) noexcept {
    ++size_;
    greenlet.next_ = nullptr;
    if (first_ == nullptr) {
      first_ = greenlet.previous_ = &greenlet;  // the first one's previous_ is the last one
      return;
    }
    Greenlet* const last = first_->previous_;
    last->next_ = &greenlet;
    greenlet.previous_ = last;
    first_->previous_ = &greenlet;
  }

  void remove(Greenlet& greenlet) noexcept {
    --size_;
    Greenlet* const next = greenlet.next_;
    Greenlet* const previous = greenlet.previous_;
    if (first_ == &greenlet) {
      first_ = next;
    } else {
      previous->next_ = next;
    }
    if (next != nullptr) {
      next->previous_ = previous;
    } else if (first_ != nullptr) {
      first_->previous_ = previous;
    }
    greenlet.next_ = greenlet.previous_ = nullptr;
  }

  // Forgets all of them: their thread has ended.
  void clear() noexcept {
    first_ = nullptr;
    size_ = 0;
  }

 private:
  friend struct DebugLayout;  // debug_layout.cpp

  Greenlet* first_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace greenlet::core
