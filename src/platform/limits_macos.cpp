// The limits of the process on macOS: it has none on address space, nor on parts of memory.
#include "platform/limits.h"

#include <limits>

#include "platform/testing.h"

namespace greenlet::platform {

Room find_room(bool) noexcept { return {}; }

// A process has 47 bits of addresses on either architecture.
std::size_t address_space() noexcept {
  const std::size_t forced = for_tests::switches.address_space.load();
  return forced != 0 ? forced : std::size_t{1} << 47;
}

std::size_t mapping_limit() noexcept { return std::numeric_limits<std::size_t>::max(); }
bool mappings_exhausted() noexcept { return false; }

}  // namespace greenlet::platform
