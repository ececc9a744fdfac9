// Calls of the package's Python code where it can say more than C should: notes on errors
// (greenlet/_hints.py), and the report of greenlets that collections end (greenlet/inspect.py).
#pragma once

#include <Python.h>

#include "core/greenlet.h"
#include "core/module_state.h"
#include "core/ref.h"

namespace greenlet::core {

// Lets greenlet._hints.<function>(exception, subject, other) add a note to the exception that is
// set. The exception stays as it is if that fails, unless by what is no Exception, such as
// KeyboardInterrupt: that is set then. `other` may be null.
void add_hint(const char* function, PyObject* subject, PyObject* other = nullptr) noexcept;

// A collection has found a suspended greenlet, and it is about to be killed: counts it, and calls
// the function that inspect.on_collected() has set.
void note_collected(Greenlet& greenlet) noexcept;

// Sets (or removes) that function; returns the old one, or None.
Ref exchange_collected_callback(ModuleState& module, Ref callback) noexcept;

}  // namespace greenlet::core
