// The limit of a stack on Windows: the lowest byte that it may use before its guard page moves.
//
// While the stack runs, or its context is suspended, the limit is in the thread's block or in the
// frame that the switch has written (context/switch_x86_64_windows.S). Between two contexts on the
// same stack it is in a word below the boundary.
#pragma once

#include <cstddef>

namespace greenlet::platform {

inline constexpr std::size_t kStackLimitBelow = 0x10;  // in the assembly, too

inline void set_stack_limit(std::byte* boundary, std::byte* limit) noexcept {
  *reinterpret_cast<std::byte**>(boundary - kStackLimitBelow) = limit;
}

}  // namespace greenlet::platform
