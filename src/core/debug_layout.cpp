// Our part of the debug table (cpython/debug_block.h): the list of all Threads, where the fields of
// our structures are that lead from there to each greenlet and its stack, and where the registers
// of a suspended greenlet are.
#include <algorithm>
#include <cstddef>
#include <iterator>

#include "context/saved_registers.h"
#include "core/greenlet.h"
#include "core/thread.h"
#include "core/thread_registry.h"
#include "cpython/debug_block.h"

// All compilers that can build this know the offsets in classes that are not standard layout.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace greenlet::core {

using cpython::DebugEntry;

// A friend of the classes whose private members it tells.
struct DebugLayout {
  static constexpr DebugEntry kEntries[] = {
      // The pointer to the first Thread. Threads that have ended stay in the list, without a
      // module.
      {"threads", {.address = &ThreadRegistry::made_}},
      {"thread.next", {offsetof(Thread, next_made_)}},
      {"thread.module", {offsetof(Thread, listed_in_)}},
      {"thread.state", {offsetof(Thread, tstate_)}},
      {"thread.main", {offsetof(Thread, main_)}},
      {"thread.running", {offsetof(Thread, running_)}},
      // The suspended greenlets, and the running one unless it is the main greenlet.
      {"thread.first_started", {offsetof(Thread, started_) + offsetof(GreenletList, first_)}},
      {"thread.stacks", {offsetof(Thread, started_) + offsetof(GreenletList, size_)}},

      // The control block of a greenlet.
      {"greenlet.next", {offsetof(Greenlet, next_)}},
      {"greenlet.thread", {offsetof(Greenlet, thread_)}},
      {"greenlet.object", {offsetof(Greenlet, object_)}},
      {"greenlet.is_main", {offsetof(Greenlet, is_main_)}},
      {"greenlet.state", {offsetof(Greenlet, state_)}},  // a byte
      {"state.new", {static_cast<int>(State::kNew)}},
      {"state.running", {static_cast<int>(State::kRunning)}},
      {"state.dead", {static_cast<int>(State::kDead)}},
      {"state.abandoned", {static_cast<int>(State::kAbandoned)}},
      {"state.suspended", {static_cast<int>(State::kSuspended)}},  // and all numbers above it
      // Its frames lie elsewhere, and its C stack cannot be read.
      {"state.frozen", {static_cast<int>(Greenlet::marked(Greenlet::kFrozen))}},
      {"greenlet.parent", {offsetof(Greenlet, parent_)}},  // an object, or null
      {"greenlet.run", {offsetof(Greenlet, run_)}},
      {"greenlet.notes", {offsetof(Greenlet, notes_)}},  // what tools have noted, or null
      {"notes.name", {offsetof(Greenlet::Notes, name)}},
      {"notes.origin", {offsetof(Greenlet::Notes, origin)}},
      {"greenlet.stack_state", {offsetof(Greenlet, stack_state_)}},
      // The C stack in use of a suspended greenlet reaches from the stack pointer to the boundary.
      {"greenlet.stack_pointer",
       {offsetof(Greenlet, context_) + context::Context::offset_of_stack_pointer()}},
      {"greenlet.stack_boundary",
       {offsetof(Greenlet, region_) + offsetof(stack::Region, boundary)}},

      // The object of a greenlet.
      {"greenlet_object.greenlet", {offsetof(Object, greenlet)}},
      {"greenlet_object.dict", {offsetof(Object, dict)}},

      {"registers.bytes", {context::kSavedBytes}},
  };
};

namespace {

constexpr std::size_t kCount =
    std::size(DebugLayout::kEntries) + std::size(context::kSavedRegisters);

// The entries, and one for each register.
struct AllEntries {
  DebugEntry all[kCount] = {};

  constexpr AllEntries() noexcept {
    DebugEntry* next = std::ranges::copy(DebugLayout::kEntries, all).out;
    for (const context::SavedRegister& each : context::kSavedRegisters) {
      constexpr char kPrefix[] = "register.";
      char* const end = std::copy(std::begin(kPrefix), std::end(kPrefix) - 1, next->name);
      std::ranges::copy(each.name, end);
      next->value.number = each.offset;
      ++next;
    }
  }
};

[[gnu::used, gnu::retain, gnu::section(GREENLET_DEBUG_SECTION)]]
constinit cpython::DebugBlock<kCount> g_block(&g_block, AllEntries().all);

}  // namespace
}  // namespace greenlet::core
