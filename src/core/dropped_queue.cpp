// The queue by which threads hand greenlets over to their owner.
#include "core/dropped_queue.h"

#include <mutex>
#include <utility>

#include "core/thread.h"

namespace greenlet::core {

bool DroppedQueue::hand_over(Greenlet& greenlet, bool by_collector) noexcept {
  ModuleState& module = greenlet.module();
  const std::lock_guard lock(module.owners);
  Thread* const owner = greenlet.thread();
  if (owner == nullptr || greenlet.is_queued_) {
    return false;
  }
  greenlet.is_queued_ = true;
  greenlet.queued_by_collector_ = by_collector;
  Py_INCREF(greenlet.object());
  std::atomic<Greenlet*>& head = owner->dropped().head_;
  greenlet.next_queued_ = head.load(std::memory_order_relaxed);
  head.store(&greenlet, std::memory_order_release);
  ++module.queued_greenlets;
  return true;
}

Ref DroppedQueue::take(ModuleState& module, bool& by_collector) noexcept {
  const std::lock_guard lock(module.owners);
  Greenlet* const first = head_.load(std::memory_order_relaxed);
  if (first == nullptr) {
    return {};
  }
  head_.store(std::exchange(first->next_queued_, nullptr), std::memory_order_relaxed);
  first->is_queued_ = false;
  by_collector = first->queued_by_collector_;
  --module.queued_greenlets;
  return Ref::take(first->object());
}

void DroppedQueue::remove(Greenlet& greenlet) noexcept {
  ModuleState& module = greenlet.module();
  Ref removed;  // dropped after the lock
  const std::lock_guard lock(module.owners);
  Greenlet* before = nullptr;  // in the queue ahead of `each`
  Greenlet* each = head_.load(std::memory_order_relaxed);
  while (each != nullptr && each != &greenlet) {
    before = std::exchange(each, each->next_queued_);
  }
  if (each == nullptr) {
    return;
  }
  if (before == nullptr) {
    head_.store(greenlet.next_queued_, std::memory_order_relaxed);
  } else {
    before->next_queued_ = greenlet.next_queued_;
  }
  greenlet.is_queued_ = false;
  --module.queued_greenlets;
  removed = Ref::take(greenlet.object());
}

void DroppedQueue::drop_all(Greenlet* first, ModuleState& module) noexcept {
  while (first != nullptr) {
    Greenlet* const next = first->next_queued_;
    --module.queued_greenlets;
    const Ref dropped = Ref::take(first->object());
    first = next;
  }
}

}  // namespace greenlet::core
