// How large the stack of an OS thread is. A file of its own, see CMakeLists.txt.
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "layout.h"
#include "memory.h"

// As in src/context/exceptions.cpp: these moved in glibc 2.32 and 2.34, and the old versions are
// everywhere.
#if defined(__GLIBC__) && defined(__x86_64__)
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.2.5");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.17");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.17");
#endif

namespace greenlet::stack {

bool is_main_thread() noexcept { return syscall(SYS_gettid) == getpid(); }

std::size_t thread_stack_bytes() noexcept {
  constexpr std::size_t kMegabyte = std::size_t{1} << 20;
  std::size_t bytes = 0;
  if (is_main_thread()) {
    // The C library would read all of /proc/self/maps for the main thread.
    rlimit stack{};
    if (getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur != RLIM_INFINITY) {
      bytes = stack.rlim_cur;
    }
  } else if (pthread_attr_t attributes; pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* low = nullptr;
    if (pthread_attr_getstack(&attributes, &low, &bytes) != 0) {
      bytes = 0;
    }
    pthread_attr_destroy(&attributes);
  }
  // The page or two that are missing from a thread's stack are its guard.
  return round_up(std::min(bytes, kMaxSize), kMegabyte);
}

}  // namespace greenlet::stack
