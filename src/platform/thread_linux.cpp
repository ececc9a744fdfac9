// The stack that the system has given an OS thread, on Linux with glibc or musl; and
// Mutex::try_lock().
#include "platform/thread.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "platform/mutex.h"
#include "platform/old_glibc.h"

namespace greenlet::platform {
namespace {

struct Bounds {
  const std::byte* low = nullptr;
  const std::byte* high = nullptr;

  bool contain(const std::byte* address) const noexcept { return low <= address && address < high; }
};

// Empty if the C library does not know.
Bounds ask() noexcept {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) {
    return {};
  }
  void* low = nullptr;
  std::size_t bytes = 0;
  const bool failed = pthread_attr_getstack(&attributes, &low, &bytes) != 0;
  pthread_attr_destroy(&attributes);
  if (failed) {
    return {};
  }
  return {static_cast<std::byte*>(low), static_cast<std::byte*>(low) + bytes};
}

}  // namespace

bool Mutex::try_lock() noexcept { return pthread_mutex_trylock(&mutex_) == 0; }

bool is_main_thread() noexcept { return syscall(SYS_gettid) == getpid(); }

std::size_t thread_stack_bytes() noexcept {
  if (is_main_thread()) {
    // The C library would read all of /proc/self/maps for the main thread.
    rlimit stack{};
    const bool is_limited = getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur != RLIM_INFINITY;
    return is_limited ? static_cast<std::size_t>(std::min<rlim_t>(stack.rlim_cur, SIZE_MAX)) : 0;
  }
  const Bounds bounds = ask();
  return static_cast<std::size_t>(bounds.high - bounds.low);
}

bool is_on_own_stack(const std::byte* address) noexcept {
  static constinit thread_local Bounds known;
  if (!known.contain(address)) {
    known = ask();  // for the first time; or again, as setrlimit() moves the main thread's low end
  }
  return known.low == nullptr || known.contain(address);
}

}  // namespace greenlet::platform
