// Faults on Windows: a vectored exception handler, and what happens if nobody handles an exception.
//
// Handlers of an overflow run on the stack that is full: Windows leaves them a page or two.
#include "platform/fault.h"

#include <windows.h>
// After windows.h, which it needs.
#include <intrin.h>

#include <atomic>
#include <cstddef>

#include "platform/memory.h"

namespace greenlet::platform {
namespace {

constinit std::atomic<FaultHook> current_hook{nullptr};
constinit std::atomic<void*> handler{nullptr};

// The lowest address of the stack that runs: DeallocationStack in the thread's block (TEB).
const std::byte* lowest_address() noexcept {
  return reinterpret_cast<const std::byte*>(__readgsqword(0x1478));
}

// What the hook is to be asked about. The kernel tells of an overflow before the guard of the stack
// is touched; then this is an address of the guard. So it is for an access to the lowest pages,
// which are never committed.
const std::byte* address_of(const EXCEPTION_RECORD& about) noexcept {
  const std::byte* const lowest = lowest_address();
  if (about.ExceptionCode == EXCEPTION_STACK_OVERFLOW) {
    return lowest - 1;
  }
  if (about.ExceptionCode != EXCEPTION_ACCESS_VIOLATION || about.NumberParameters < 2) {
    return nullptr;
  }
  const auto* const address = reinterpret_cast<const std::byte*>(about.ExceptionInformation[1]);
  return address >= lowest && address < lowest + 2 * kPageSize ? lowest - 1 : address;
}

LONG CALLBACK on_exception(EXCEPTION_POINTERS* about) noexcept {
  const FaultHook hook = current_hook.load(std::memory_order_acquire);
  const std::byte* const address = address_of(*about->ExceptionRecord);
  if (hook != nullptr && address != nullptr && hook(address)) {
    // Once, as the contract says. The handler stays: none may be removed while it runs.
    current_hook.store(nullptr, std::memory_order_release);
  }
  return EXCEPTION_CONTINUE_SEARCH;
}

}  // namespace

bool watch_faults(FaultHook hook) noexcept {
  current_hook.store(hook, std::memory_order_release);
  if (handler.load(std::memory_order_relaxed) == nullptr) {
    handler.store(AddVectoredExceptionHandler(1, &on_exception), std::memory_order_relaxed);
  }
  return handler.load(std::memory_order_relaxed) != nullptr;
}

void stop_watching_faults() noexcept {
  current_hook.store(nullptr, std::memory_order_release);
  if (void* const ours = handler.exchange(nullptr, std::memory_order_relaxed)) {
    RemoveVectoredExceptionHandler(ours);
  }
}

// The handler of the outermost frame of each context (../context/switch_x86_64_windows.S). It does
// what Windows does in the outermost frame of a thread.
extern "C" EXCEPTION_DISPOSITION greenlet_unhandled_exception(EXCEPTION_RECORD* about, void*,
                                                              CONTEXT* context, void*) noexcept {
  if ((about->ExceptionFlags & (EXCEPTION_UNWINDING | EXCEPTION_EXIT_UNWIND)) != 0) {
    return ExceptionContinueSearch;
  }
  EXCEPTION_POINTERS pointers{.ExceptionRecord = about, .ContextRecord = context};
  const LONG answer = UnhandledExceptionFilter(&pointers);
  if (answer == EXCEPTION_EXECUTE_HANDLER) {
    TerminateProcess(GetCurrentProcess(), about->ExceptionCode);
  }
  return answer == EXCEPTION_CONTINUE_EXECUTION ? ExceptionContinueExecution
                                                : ExceptionContinueSearch;
}

void ensure_signal_stack() noexcept {}
void release_signal_stack() noexcept {}

}  // namespace greenlet::platform
