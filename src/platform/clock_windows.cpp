// Clocks on Windows.
#include "platform/clock.h"

#include <windows.h>

namespace greenlet::platform {
namespace {

constexpr std::uint64_t kNanoseconds = 1'000'000'000;

std::uint64_t ticks_per_second() noexcept {
  LARGE_INTEGER frequency;
  QueryPerformanceFrequency(&frequency);  // reads memory that the kernel shares
  return static_cast<std::uint64_t>(frequency.QuadPart);
}

std::uint64_t monotonic() noexcept {
  LARGE_INTEGER counter;
  QueryPerformanceCounter(&counter);
  const auto ticks = static_cast<std::uint64_t>(counter.QuadPart);
  const std::uint64_t per_second = ticks_per_second();
  // In two parts, because ticks * kNanoseconds overflows within hours.
  return ticks / per_second * kNanoseconds + ticks % per_second * kNanoseconds / per_second;
}

std::uint64_t nanoseconds(const FILETIME& time) noexcept {
  return (std::uint64_t{time.dwHighDateTime} << 32 | time.dwLowDateTime) * 100;
}

}  // namespace

std::uint64_t now(Clock clock) noexcept {
  if (clock != Clock::kThreadCpu) {
    return monotonic();
  }
  FILETIME created;
  FILETIME ended;
  FILETIME kernel;
  FILETIME user;
  GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user);
  return nanoseconds(kernel) + nanoseconds(user);
}

void pause(std::uint32_t nanoseconds) noexcept { Sleep((nanoseconds + 999'999) / 1'000'000); }

}  // namespace greenlet::platform
