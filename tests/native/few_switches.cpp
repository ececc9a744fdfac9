// What every_instruction_gdb.py looks at: a few switches, and a call on the other stack, without a
// sanitizer or a test framework.
#include <fenv.h>

#include <cstdlib>

#include "fiber.h"

using greenlet::tests::Fiber;

namespace {

[[gnu::noinline]] void* inside(Fiber& self) {
  void* message = self.suspend();
  asm volatile("" : : : "memory");  // no tail call: the debugger looks for this frame
  return message;
}

[[gnu::noinline]] void* below(void* argument) { return argument; }

[[gnu::noinline]] void* inside_calls(Fiber& self) {
  void* result = self.resumer().call_below(&below, nullptr);
  asm volatile("" : : : "memory");
  return result;
}

[[gnu::noinline]] void outside(Fiber& fiber) {
  fiber.resume();
  asm volatile("" : : : "memory");
}

}  // namespace

int main() {
  Fiber fiber([](Fiber& self, void*) {
    inside(self);
    fesetround(FE_UPWARD);  // from here on, switches take the rarer way
    return inside(self);
  });
  while (!fiber.done()) {
    outside(fiber);
  }
  Fiber calling([](Fiber& self, void*) { return inside_calls(self); });
  outside(calling);
  return EXIT_SUCCESS;
}
