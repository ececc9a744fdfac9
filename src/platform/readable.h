// Whether an address can be read, without a fault if it cannot.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace greenlet::platform {

// Of the 8 bytes there.
inline bool is_readable(const void* address) noexcept {
  // The kernel reads the signal set before it looks at the (invalid) first argument.
  errno = 0;
  syscall(SYS_rt_sigprocmask, ~0, address, nullptr, _NSIG / 8);
  return errno != EFAULT;
}

}  // namespace greenlet::platform
