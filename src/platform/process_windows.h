// The process on Windows: see process.h. process_windows.cpp implements it.
#pragma once

#include <cstddef>

namespace greenlet::platform {

int process_id() noexcept;
std::size_t thread_id() noexcept;
void write_to_stderr(const char* text, std::size_t length) noexcept;

// Windows has no fork().
inline int around_fork(void (*)(), void (*)()) noexcept { return 0; }

}  // namespace greenlet::platform
