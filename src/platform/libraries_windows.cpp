// Libraries on Windows.
#include "platform/libraries_windows.h"

#include <windows.h>
// After windows.h, which it needs.
#include <psapi.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "platform/mutex.h"

namespace greenlet::platform {
namespace {

// LdrRegisterDllNotification() of ntdll.dll, which is documented and has no header.
using Notified = void(CALLBACK*)(ULONG reason, const void* data, void* context);
using Register = LONG(NTAPI*)(ULONG flags, Notified notified, void* context, void** cookie);
constexpr ULONG kLoaded = 1;

// The loader holds its lock. So nothing but this is done here.
void CALLBACK on_library(ULONG reason, const void*, void*) noexcept {
  if (reason == kLoaded) {
    libraries_loaded.fetch_add(1, std::memory_order_relaxed);
  }
}

Function function_of(HMODULE library, const char* name) noexcept {
  // A cast of its own, because the types differ in their parameters.
  return reinterpret_cast<Function>(reinterpret_cast<void*>(GetProcAddress(library, name)));
}

Function pinned(HMODULE library, const char* name) noexcept {
  const Function found = function_of(library, name);
  HMODULE kept;
  return found != nullptr && GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN |
                                                    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                                                reinterpret_cast<const char*>(found), &kept) != 0
             ? found
             : nullptr;
}

}  // namespace

constinit std::atomic<std::uint32_t> libraries_loaded{0};

void count_libraries() noexcept {
  static constinit Mutex mutex;
  static constinit bool counts = false;
  const std::lock_guard lock(mutex);
  if (!counts) {
    counts = true;
    const auto begin = reinterpret_cast<Register>(
        function_of(GetModuleHandleA("ntdll.dll"), "LdrRegisterDllNotification"));
    void* cookie;
    if (begin != nullptr) {
      begin(0, &on_library, nullptr, &cookie);
    }
  }
}

Function find_function(const char* library, const char* name) noexcept {
  const HMODULE found = GetModuleHandleA(library);
  return found == nullptr ? nullptr : pinned(found, name);
}

Function find_function(const char* name) noexcept {
  std::array<HMODULE, 1024> libraries;
  DWORD bytes = 0;
  if (K32EnumProcessModules(GetCurrentProcess(), libraries.data(), sizeof(libraries), &bytes) ==
      0) {
    return nullptr;
  }
  const std::size_t count = std::min(bytes / sizeof(HMODULE), libraries.size());
  for (std::size_t i = 0; i < count; ++i) {
    if (const Function found = pinned(libraries[i], name); found != nullptr) {
      return found;
    }
  }
  return nullptr;
}

}  // namespace greenlet::platform
