// Whether an address can be read. The contract; memory_linux.cpp implements it.
#pragma once

namespace greenlet::platform {

// Whether the 8 bytes at `address` can be read. Never faults. One system call; sets errno.
// The result may be out of date at once if another thread unmaps memory.
bool is_readable(const void* address) noexcept;

}  // namespace greenlet::platform
