// Code is not listed on Windows: no page tables are given back there, so no stack is frozen.
#include "platform/code.h"

namespace greenlet::platform {

bool ForeignCode::is_absent(const std::byte*, const std::byte*, std::span<const KnownCode>,
                            std::uint64_t) noexcept {
  return false;
}
bool ForeignCode::can_tell(std::span<const KnownCode>) noexcept { return false; }
bool ForeignCode::allow(const char*) noexcept { return true; }

}  // namespace greenlet::platform
