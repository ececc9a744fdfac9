// Clocks, in nanoseconds. The body for Linux is small enough to be inline; another system has its
// own body here.
#pragma once

#if defined(_WIN32)
#include "platform/clock_windows.h"  // IWYU pragma: export
#else

#include <cstdint>
#include <ctime>

namespace greenlet::platform {

enum class Clock : int {
  kMonotonic = CLOCK_MONOTONIC,  // time that passes
#if defined(__APPLE__)
  kCoarse = CLOCK_MONOTONIC,
#else
  kCoarse = CLOCK_MONOTONIC_COARSE,  // the same, a few milliseconds late, and faster to read
#endif
  kThreadCpu = CLOCK_THREAD_CPUTIME_ID,  // time that the calling thread has worked
};

// The time that the clock shows. Takes a few nanoseconds, but kThreadCpu is a system call.
inline std::uint64_t now(Clock clock) noexcept {
  timespec time{};
  clock_gettime(static_cast<clockid_t>(clock), &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Lets other threads run for less than a second. A signal may end it earlier.
inline void pause(std::uint32_t nanoseconds) noexcept {
  const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(nanoseconds)};
  nanosleep(&time, nullptr);
}

}  // namespace greenlet::platform

#endif
