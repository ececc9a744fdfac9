// Faults on Windows: nothing yet. A vectored exception handler could tell of them.
#include "platform/fault.h"

namespace greenlet::platform {

bool watch_faults(FaultHook) noexcept { return false; }
void stop_watching_faults() noexcept {}
void ensure_signal_stack() noexcept {}
void release_signal_stack() noexcept {}

}  // namespace greenlet::platform
