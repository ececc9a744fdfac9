// The process on Windows.
#include "platform/process.h"

#include <windows.h>

namespace greenlet::platform {

int process_id() noexcept { return static_cast<int>(GetCurrentProcessId()); }

std::size_t thread_id() noexcept { return GetCurrentThreadId(); }

void write_to_stderr(const char* text, std::size_t length) noexcept {
  DWORD written;
  WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, static_cast<DWORD>(length), &written, nullptr);
}

}  // namespace greenlet::platform
