// The suspended greenlets of one thread that other threads have dropped or collected, until their
// thread kills them.
#pragma once

#include <atomic>

#include "core/greenlet.h"
#include "core/ref.h"

namespace greenlet::core {

// Linked by Greenlet::next_queued_; owns a reference to each greenlet in it. Every change is made
// under ModuleState::owners. is_empty() needs no lock: the owner thread may see a new greenlet a
// moment late.
class DroppedQueue {
 public:
  bool is_empty() const noexcept { return head_.load(std::memory_order_relaxed) == nullptr; }

  // For a greenlet that another thread than its owner has dropped or (`by_collector`) collected:
  // takes a reference and puts the greenlet into the queue of its owner. Returns false and does
  // nothing if the owner has ended, or if the greenlet is in the queue already.
  static bool hand_over(Greenlet& greenlet, bool by_collector) noexcept;

  // Takes the greenlet that was put in last; empty if there is none. Tells whether a collection put
  // it in.
  Ref take(ModuleState& module, bool& by_collector) noexcept;
  // Takes out `greenlet`, if it is there, and drops the queue's reference.
  void remove(Greenlet& greenlet) noexcept;

  // Empties the queue without dropping its references. Call it with ModuleState::owners held. Then
  // drop_all(), without the lock, drops the references of what it has returned.
  Greenlet* take_all() noexcept { return head_.exchange(nullptr); }
  static void drop_all(Greenlet* first, ModuleState& module) noexcept;

 private:
  std::atomic<Greenlet*> head_{nullptr};
};

}  // namespace greenlet::core
