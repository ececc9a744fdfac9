// Which threads and greenlets there are, and where a greenlet is: for tools that look at a program.
// Any thread may call these. They take the world as it is at one moment: no other thread of the
// interpreter runs Python during the look.
#pragma once

#include <Python.h>

#include "core/greenlet.h"
#include "core/module_state.h"
#include "core/ref.h"

namespace greenlet::core {

// The threads of the interpreter that have used greenlets, as a tuple of tuples: ident, native id,
// main greenlet, running greenlet, and how many greenlets have a stack there. Empty with an
// exception set if there is no memory.
Ref list_threads(const ModuleState& module) noexcept;

// The threads that have not switched since an earlier call, of whatever watch, and that have
// greenlets with a stack, as a tuple of tuples: ident, how many seconds ago the first call since
// the last switch was, running greenlet, how many greenlets have a stack there. A thread that runs
// a scheduler is left out: it waits for events. Empty with an exception set if there is no memory.
Ref watch_threads(const ModuleState& module) noexcept;

// The main greenlet of each thread, followed by the started greenlets that have not finished, the
// oldest first, as a tuple. Of the thread with this ident alone, unless it is 0. Looks at no stack.
// Empty with an exception set if there is no memory.
Ref list_greenlets(const ModuleState& module, unsigned long ident) noexcept;

// The Python frames of a greenlet that is suspended or running, in whatever thread, as a tuple of
// tuples, the innermost frame first: code object, offset of the instruction, line. None for any
// other greenlet. Makes no frame objects. Empty with an exception set if there is no memory.
Ref list_frames(Greenlet& greenlet) noexcept;

// Notes where a new greenlet was made, which no other thread knows yet: frames of the calling
// thread, as list_frames(). Does nothing without memory.
void note_origin(Greenlet& greenlet) noexcept;

// How many frames note_origin() notes, in all threads; 0 turns it off.
void track_origin(ModuleState& module, int frames) noexcept;

// Sets the name that tools show, a str, or (empty) removes it; the old one is in `name` then. False
// without an exception if there is no memory.
bool exchange_name(Greenlet& greenlet, Ref& name) noexcept;
Ref name_of(const Greenlet& greenlet) noexcept;

// What a greenlet is at one moment.
struct Description {
  State state = State::kNew;
  unsigned long ident = 0;  // of the thread it is in; 0 if it is in none
  unsigned long native_id = 0;
  std::size_t stack_in_use = 0;  // as core::stack_in_use()
  Ref run;                       // what it runs or is to run; empty if there is nothing
  Ref first_argument;            // of run, while it runs; empty if there is none
  Ref origin;                    // as note_origin() has noted it
};
Description describe(Greenlet& greenlet) noexcept;

}  // namespace greenlet::core
