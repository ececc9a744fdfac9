// The stack that macOS has given an OS thread; and Mutex::try_lock().
#include "platform/thread.h"

#include <pthread.h>

#include <cstddef>

#include "platform/mutex.h"

namespace greenlet::platform {

bool Mutex::try_lock() noexcept { return pthread_mutex_trylock(&mutex_) == 0; }

bool is_main_thread() noexcept { return pthread_main_np() != 0; }

// The main thread's stack, too, has all its addresses from the start of the program.
std::size_t thread_stack_bytes() noexcept { return pthread_get_stacksize_np(pthread_self()); }

bool is_on_own_stack(const std::byte* address) noexcept {
  const auto* const high = static_cast<const std::byte*>(pthread_get_stackaddr_np(pthread_self()));
  return high - thread_stack_bytes() <= address && address < high;
}

}  // namespace greenlet::platform
