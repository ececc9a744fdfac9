#include "core/dump.h"

#include <string_view>

#include "core/thread_registry.h"
#include "cpython/frame_dump.h"
#include "platform/readable.h"

namespace greenlet::core {
namespace {

constexpr std::size_t kMostGreenlets = 10'000;  // of a thread

using GreenletCopy = platform::ReadableCopy<Greenlet>;

// `address` is the greenlet's, of which `greenlet` is a copy.
void dump_one(const Greenlet* address, const Greenlet& greenlet, const Greenlet* running,
              const PyThreadState* tstate, cpython::Dump& dump) noexcept {
  const bool runs = address == running;
  dump.add("  greenlet ").add_address(greenlet.object());
  platform::ReadableCopy<Greenlet::Notes> notes(greenlet.notes());
  if (notes.is_read && notes->name != nullptr) {
    dump.add(" ").add_text(notes->name);
  }
  dump.add(greenlet.is_main() ? ", main" : "").add(runs ? ", running" : ", suspended");
  dump.add(" (most recent call first):\n");
  if (runs) {
    cpython::dump_running(tstate, "    ", dump);
  } else {
    cpython::dump_suspended(greenlet.stack_state(), "    ", dump);
  }
}

void dump_thread(const Thread& thread, cpython::Dump& dump) noexcept {
  const PyThreadState* const tstate = thread.peek_tstate();
  const Greenlet* const running = thread.peek_running();
  const Greenlet* const main = thread.peek_main();
  platform::ReadableCopy<PyThreadState> copied_tstate(tstate);
  GreenletCopy copied_main(main);
  if (!copied_tstate.is_read || !copied_main.is_read || !thread.peek_is_living(*copied_tstate)) {
    return;  // it is ending, or its thread state has ended
  }
  dump.add("Thread ").add(static_cast<std::size_t>(copied_tstate->native_thread_id));
  dump.add(", ").add(1 + thread.started().size()).add(" greenlets\n");
  dump_one(main, *copied_main, running, tstate, dump);
  std::size_t count = 0;
  for (const Greenlet* greenlet = thread.started().first(); greenlet != nullptr;) {
    GreenletCopy copied(greenlet);
    if (++count > kMostGreenlets || !copied.is_read) {
      dump.add("  ...\n");
      return;
    }
    dump_one(greenlet, *copied, running, tstate, dump);
    greenlet = GreenletList::after(*copied);
  }
}

}  // namespace

void dump_greenlets(int descriptor) noexcept {
  cpython::Dump dump(descriptor);
  ThreadRegistry::for_each_living([&](const Thread& thread) { dump_thread(thread, dump); });
}

}  // namespace greenlet::core
