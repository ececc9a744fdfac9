// The limits of the process on Windows. What may be committed is no limit here: VirtualAlloc()
// refuses to commit more, and then there is no stack.
#include "platform/limits.h"

#include <windows.h>

#include <cstdint>
#include <limits>

#include "platform/testing.h"

namespace greenlet::platform {

Room find_room(bool) noexcept { return {}; }

std::size_t address_space() noexcept {
  if (const std::size_t forced = for_tests::switches.address_space.load(); forced != 0) {
    return forced;
  }
  SYSTEM_INFO system;
  GetSystemInfo(&system);
  return reinterpret_cast<std::uintptr_t>(system.lpMaximumApplicationAddress) + 1;
}

std::size_t mapping_limit() noexcept { return std::numeric_limits<std::size_t>::max(); }
bool mappings_exhausted() noexcept { return false; }

}  // namespace greenlet::platform
