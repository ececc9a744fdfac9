// Looking at a greenlet that may belong to another thread: its frame, its context, its stack, its
// thread. These functions make sure that the owner does not change the greenlet during the look.
#pragma once

#include <Python.h>

#include <cstddef>

#include "core/greenlet.h"
#include "core/ref.h"

namespace greenlet::core {

// The innermost frame of a suspended greenlet; empty for any other.
Ref innermost_frame(Greenlet& greenlet) noexcept;

// The bytes of C stack that a suspended greenlet has in use; 0 for any other.
std::size_t stack_in_use(const Greenlet& greenlet) noexcept;

// Puts the context of `greenlet` into `context`; empty if it has none. False if the greenlet is
// running in another thread: its context cannot be known then.
bool get_context(Greenlet& greenlet, Ref& context) noexcept;
// Exchanges the context of `greenlet` for `context`; the old one is in `context` then. False, and
// nothing is done, if the greenlet is running in another thread.
bool exchange_context(Greenlet& greenlet, Ref& context) noexcept;

// The Thread that `greenlet` belongs to, or would start in; only to be compared. Null if that
// thread has ended.
const Thread* thread_of(const Greenlet& greenlet) noexcept;

}  // namespace greenlet::core
