// The suspended greenlets of one thread that have been dropped or collected where they could not be
// killed at once, mostly in other threads. Their thread kills them later.
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

  // Takes a reference to `greenlet` and puts it into the queue of its owner. `by_collector`: a
  // collection has found it to be garbage. Returns false and does nothing if the owner has ended,
  // or if the greenlet is in the queue already. Three functions call it: kill_unreachable(), for a
  // greenlet that cannot be killed here and now; recount() of collection.cpp, for what a collection
  // has found; and call_below_main() of thread_stack.cpp, with the running greenlet as a marker.
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
