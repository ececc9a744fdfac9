// Clocks on Windows: see clock.h. clock_windows.cpp implements it.
#pragma once

#include <cstdint>

namespace greenlet::platform {

enum class Clock : std::uint8_t {
  kMonotonic,
  kCoarse,  // the same as kMonotonic, which is fast here
  // It goes on in steps of 15 ms on many machines.
  kThreadCpu,
};

std::uint64_t now(Clock clock) noexcept;

// Takes a millisecond at least.
void pause(std::uint32_t nanoseconds) noexcept;

}  // namespace greenlet::platform
