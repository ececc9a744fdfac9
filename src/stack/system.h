// Mapping memory by system calls of our own.
//
// Memory profilers (memray and its kin) put functions of their own in place of the C library's
// mmap() and munmap(), and count what passes there as allocated memory. Our mappings are
// reservations: they are many times larger than what is ever used of them. So we pass by; what is
// used shows in the resident memory of the process, as for the stacks of threads.
//
// Sanitizers do the same for a good reason, so they get to see the calls.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace greenlet::stack::system {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

inline void* map(std::size_t bytes, int protection, int flags) noexcept {
  return ::mmap(nullptr, bytes, protection, flags, -1, 0);
}
inline void* resize(void* address, std::size_t old_bytes, std::size_t bytes) noexcept {
  return ::mremap(address, old_bytes, bytes, MREMAP_MAYMOVE);
}
inline int unmap(void* address, std::size_t bytes) noexcept { return ::munmap(address, bytes); }
inline int protect(void* address, std::size_t bytes, int protection) noexcept {
  return ::mprotect(address, bytes, protection);
}
inline int advise(void* address, std::size_t bytes, int advice) noexcept {
  return ::madvise(address, bytes, advice);
}

#else

// These return what the functions of the C library do, and set errno as they do.
inline void* map(std::size_t bytes, int protection, int flags) noexcept {
#ifdef SYS_mmap2
  constexpr long kMap = SYS_mmap2;
#else
  constexpr long kMap = SYS_mmap;
#endif
  return reinterpret_cast<void*>(syscall(kMap, nullptr, bytes, protection, flags, -1, 0L));
}
inline int unmap(void* address, std::size_t bytes) noexcept {
  return static_cast<int>(syscall(SYS_munmap, address, bytes));
}
inline int protect(void* address, std::size_t bytes, int protection) noexcept {
  return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}
inline int advise(void* address, std::size_t bytes, int advice) noexcept {
  return static_cast<int>(syscall(SYS_madvise, address, bytes, advice));
}
inline void* resize(void* address, std::size_t old_bytes, std::size_t bytes) noexcept {
  return reinterpret_cast<void*>(
      syscall(SYS_mremap, address, old_bytes, bytes, MREMAP_MAYMOVE, nullptr));
}

#endif

}  // namespace greenlet::stack::system
