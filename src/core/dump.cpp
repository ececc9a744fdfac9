#include "core/dump.h"

#include <string_view>

#include "core/thread_registry.h"
#include "cpython/frame_dump.h"
#include "platform/readable.h"

namespace greenlet::core {
namespace {

constexpr std::size_t kMostGreenlets = 10'000;  // of a thread

bool can_read(const void* address) noexcept {
  return address != nullptr && platform::is_readable(address);
}

void dump_one(const Greenlet& greenlet, const Greenlet* running, const PyThreadState* tstate,
              cpython::Dump& dump) noexcept {
  const bool runs = &greenlet == running;
  dump.add("  greenlet ").add_address(greenlet.object());
  if (greenlet.name() != nullptr) {
    dump.add(" ").add_text(greenlet.name());
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
  if (!can_read(tstate) || !can_read(running) || !can_read(main)) {
    return;  // it is ending
  }
  dump.add("Thread ").add(static_cast<std::size_t>(tstate->native_thread_id));
  dump.add(", ").add(1 + thread.started().size()).add(" greenlets\n");
  dump_one(*main, running, tstate, dump);
  std::size_t count = 0;
  for (const Greenlet* greenlet = thread.started().first(); greenlet != nullptr;
       greenlet = GreenletList::after(*greenlet)) {
    if (++count > kMostGreenlets || !can_read(greenlet)) {
      dump.add("  ...\n");
      return;
    }
    dump_one(*greenlet, running, tstate, dump);
  }
}

}  // namespace

void dump_greenlets(int descriptor) noexcept {
  cpython::Dump dump(descriptor);
  ThreadRegistry::for_each_living([&](const Thread& thread) { dump_thread(thread, dump); });
}

}  // namespace greenlet::core
