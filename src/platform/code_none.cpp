// Code is not listed on systems that do not give page tables back (Windows, macOS): no stack is
// frozen there.
#include "platform/code.h"

namespace greenlet::platform {

bool ForeignCode::is_absent(const std::byte*, const std::byte*, std::span<const KnownCode>,
                            std::uint64_t) noexcept {
  return false;
}
bool ForeignCode::can_tell(std::span<const KnownCode>) noexcept { return false; }
bool ForeignCode::allow(const char*) noexcept { return true; }

}  // namespace greenlet::platform
