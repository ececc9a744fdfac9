// Whether an address can be read. The contract; memory_linux.cpp implements it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::platform {

// Whether the 8 bytes at `address` can be read. Never faults. One system call; sets errno.
// The result may be out of date at once if another thread unmaps memory.
bool is_readable(const void* address) noexcept;

// Copies memory of this process that other threads may change, or unmap, at any moment. False if
// not all of it can be read. Safe in a signal handler. One or two system calls; sets errno.
bool copy_readable(void* to, const void* from, std::size_t bytes) noexcept;

// A copy, made with copy_readable(), of the bytes of an object. They may have been changed in the
// middle, or be no object at all. If they cannot be read, they are zero.
template <typename T>
struct ReadableCopy {
  explicit ReadableCopy(const void* from) noexcept
      : is_read(from != nullptr && reinterpret_cast<std::uintptr_t>(from) % alignof(T) == 0 &&
                copy_readable(bytes, from, sizeof(T))) {}

  T* operator->() noexcept { return reinterpret_cast<T*>(bytes); }
  T& operator*() noexcept { return *reinterpret_cast<T*>(bytes); }

  alignas(T) std::byte bytes[sizeof(T)] = {};
  const bool is_read;
};

}  // namespace greenlet::platform
