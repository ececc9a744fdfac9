// Reporting that the C stack of a greenlet has overflowed. Off until asked for; then it costs
// nothing before a fault happens.
#pragma once

namespace greenlet::stack {

// With `enable`, a fault in the guard of a region writes a sentence to stderr before the program's
// own handler, or the default one, is called. False if this system cannot do so. Threads need a
// stack for signal handlers for this: the calling thread gets one now, others when their pools take
// regions from the reserve, until the pool ends. Without `enable`, faults are left alone again.
bool report_overflow(bool enable) noexcept;
bool reports_overflow() noexcept;

}  // namespace greenlet::stack
