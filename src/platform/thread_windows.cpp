// The stack that Windows has given a thread, and the lock of mutex_windows.h.
//
// Windows keeps the bounds of the stack that runs in the thread's block (TEB), and a switch changes
// them. So the bounds of the thread's own stack are remembered before the first switch.
#include "platform/thread.h"

#include <windows.h>

#include <cstdint>

#include "platform/mutex.h"
#include "platform/thread_windows.h"

namespace greenlet::platform {
namespace {

struct Bounds {
  std::uintptr_t low = 0;
  std::uintptr_t high = 0;
};

constinit thread_local Bounds own;

Bounds running_stack() noexcept {
  ULONG_PTR low;
  ULONG_PTR high;
  GetCurrentThreadStackLimits(&low, &high);
  return {low, high};
}

Bounds own_stack() noexcept { return own.high != 0 ? own : running_stack(); }

static_assert(sizeof(SRWLOCK) == sizeof(void*), "Mutex has room for it");
SRWLOCK* as_lock(void** word) noexcept { return reinterpret_cast<SRWLOCK*>(word); }

}  // namespace

void remember_own_stack() noexcept {
  if (own.high == 0) {
    own = running_stack();
  }
}

// No thread's stack grows beyond what was reserved for it.
bool is_main_thread() noexcept { return false; }

std::size_t thread_stack_bytes() noexcept {
  const Bounds bounds = own_stack();
  return bounds.high - bounds.low;
}

bool is_on_own_stack(const std::byte* address) noexcept {
  const Bounds bounds = own_stack();
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  return bounds.low <= at && at < bounds.high;
}

void Mutex::lock() noexcept { AcquireSRWLockExclusive(as_lock(&word_)); }
bool Mutex::try_lock() noexcept { return TryAcquireSRWLockExclusive(as_lock(&word_)) != 0; }
void Mutex::unlock() noexcept { ReleaseSRWLockExclusive(as_lock(&word_)); }

}  // namespace greenlet::platform
