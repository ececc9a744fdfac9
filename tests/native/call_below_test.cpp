// Calls on the stack of a suspended context: where they run, what they keep, who walks them.
#include <fenv.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <unwind.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "architecture.h"
#include "child.h"
#include "fiber.h"
#include "memory.h"
#include "platform/thread.h"

namespace greenlet::context {

extern "C" void greenlet_context_begin() noexcept;
extern "C" void* greenlet_context_call(void* below, void* (*function)(void*),
                                       void* argument) noexcept;

namespace {

using tests::Fiber;

void* number(std::uintptr_t value) { return reinterpret_cast<void*>(value); }
std::uintptr_t number(void* value) { return reinterpret_cast<std::uintptr_t>(value); }

// The address of a frame on the current stack. AddressSanitizer keeps local variables elsewhere.
[[gnu::noinline]] std::byte* frame_address() {
  return static_cast<std::byte*>(__builtin_frame_address(0));
}

// Calls `function(argument)` from a fiber, on the stack that has resumed the fiber.
void* call_below_resumer(void* (*function)(void*), void* argument) {
  void* result = nullptr;
  Fiber fiber([&](Fiber& self, void*) {
    result = self.resumer().call_below(function, argument);
    return nullptr;
  });
  fiber.resume();
  EXPECT_TRUE(fiber.done());
  return result;
}

TEST(CallBelow, PassesTheArgumentAndTheResult) {
  EXPECT_EQ(number(call_below_resumer([](void* at) { return number(number(at) + 1); }, number(41))),
            42U);
}

TEST(CallBelow, RunsUnderTheSuspendedFrames) {
  struct Seen {
    std::byte* inside;
    std::byte* suspended;
    bool own_inside;
    bool own_fiber;
  } seen{};
  Fiber fiber([&](Fiber& self, void*) {
    seen.own_fiber = platform::is_on_own_stack(frame_address());
    seen.suspended = self.resumer().stack_pointer();
    self.resumer().call_below(
        [](void* at) -> void* {
          auto& into = *static_cast<Seen*>(at);
          into.inside = frame_address();
          into.own_inside = platform::is_on_own_stack(into.inside);
          return nullptr;
        },
        &seen);
    return nullptr;
  });
  fiber.resume();
  EXPECT_LT(seen.inside, seen.suspended - 128);
  EXPECT_GT(seen.inside, seen.suspended - 65536);
  EXPECT_TRUE(seen.own_inside);
  EXPECT_FALSE(seen.own_fiber);
}

TEST(CallBelow, IsAlignedAsTheCallingConventionPromises) {
  EXPECT_EQ(call_below_resumer(
                [](void*) -> void* {
                  alignas(16) std::array<std::byte, 16> here{};
                  asm volatile("" : : "r"(here.data()) : "memory");
                  return number(number(here.data()) % 16);
                },
                nullptr),
            nullptr);
}

// The frames of the suspended side are as they were, however deep the call went.
TEST(CallBelow, LeavesTheSuspendedFramesAlone) {
  std::array<unsigned char, 4096> mine{};
  std::memset(mine.data(), 0x5a, mine.size());
  struct Deep {
    [[gnu::noinline]] static std::uintptr_t down(std::uintptr_t depth) {
      std::array<unsigned char, 512> noise{};
      std::memset(noise.data(), 0xff, noise.size());
      asm volatile("" : : "r"(noise.data()) : "memory");
      return depth == 0 ? 0 : 1 + down(depth - 1);
    }
  };
  const std::uintptr_t depth = 1000;
  EXPECT_EQ(number(call_below_resumer([](void* at) { return number(Deep::down(number(at))); },
                                      number(depth))),
            depth);
  for (const unsigned char byte : mine) {
    ASSERT_EQ(byte, 0x5a);
  }
}

TEST(CallBelow, ThrowsAndCatchesCppExceptions) {
  struct Body {
    static void* run(void*) {
      for (int i = 0; i < 100; ++i) {
        try {
          throw std::runtime_error("below");
        } catch (const std::exception& error) {
          EXPECT_STREQ(error.what(), "below");
        }
      }
      return nullptr;
    }
  };
  call_below_resumer(&Body::run, nullptr);
}

// The call belongs to the caller's flow of control: an exception that the caller handles is being
// handled in the call, too, and one that the suspended side handles is not.
TEST(CallBelow, KeepsTheCallersExceptions) {
  try {
    throw std::runtime_error("suspended");
  } catch (...) {
    Fiber fiber([](Fiber& self, void*) {
      EXPECT_EQ(std::current_exception(), nullptr);
      try {
        throw std::runtime_error("caller");
      } catch (...) {
        self.resumer().call_below(
            [](void*) -> void* {
              try {
                throw;
              } catch (const std::exception& error) {
                EXPECT_STREQ(error.what(), "caller");
              }
              return nullptr;
            },
            nullptr);
        EXPECT_NE(std::current_exception(), nullptr);
      }
      return nullptr;
    });
    fiber.resume();
    EXPECT_NE(std::current_exception(), nullptr);
  }
}

TEST(CallBelow, KeepsTheFloatingPointControlWords) {
  Fiber fiber([](Fiber& self, void*) {
    fesetround(FE_UPWARD);
    EXPECT_EQ(number(self.resumer().call_below(
                  [](void*) {
                    const auto mode = static_cast<std::uintptr_t>(fegetround());
                    fesetround(FE_DOWNWARD);
                    return number(mode);
                  },
                  nullptr)),
              static_cast<std::uintptr_t>(FE_UPWARD));
    EXPECT_EQ(fegetround(), FE_DOWNWARD);  // as after any call
    fesetround(FE_TONEAREST);
    return nullptr;
  });
  fiber.resume();
}

// Other contexts may begin and end in the call, with their resumer on this stack.
TEST(CallBelow, ResumesOtherContexts) {
  struct Body {
    static void* run(void*) {
      std::uintptr_t sum = 0;
      Fiber inner([](Fiber& self, void* message) {
        return self.suspend(
            self.resumer().call_below([](void* at) { return number(number(at) * 2); }, message));
      });
      sum += number(inner.resume(number(21)));
      inner.resume();
      return number(sum);
    }
  };
  EXPECT_EQ(number(call_below_resumer(&Body::run, nullptr)), 42U);
}

TEST(CallBelow, WorksInEveryThread) {
  tests::in_threads(4, [](int) {
    for (std::uintptr_t i = 0; i < 200; ++i) {
      ASSERT_EQ(
          call_below_resumer(
              [](void* at) { return platform::is_on_own_stack(frame_address()) ? at : nullptr; },
              number(i + 1)),
          number(i + 1));
    }
  });
}

// --- walking the stack ----------------------------------------------------------------------

std::vector<std::uintptr_t> walk() {
  std::vector<std::uintptr_t> functions;
  _Unwind_Backtrace(
      [](_Unwind_Context* frame, void* argument) {
        auto& into = *static_cast<std::vector<std::uintptr_t>*>(argument);
        into.push_back(_Unwind_GetRegionStart(frame));
        return into.size() < 200 ? _URC_NO_REASON : tests::kStopWalk;
      },
      &functions);
  return functions;
}

TEST(CallBelow, IsWalkedToTheCallerAndToTheEndOfItsStack) {
  std::vector<std::uintptr_t> functions;
  call_below_resumer(
      [](void* at) -> void* {
        *static_cast<std::vector<std::uintptr_t>*>(at) = walk();
        return nullptr;
      },
      &functions);
  ASSERT_LT(functions.size(), 40U);
  if (tests::kWalksLastFrame) {
    EXPECT_EQ(functions.back(), reinterpret_cast<std::uintptr_t>(&greenlet_context_begin));
  }
  EXPECT_EQ(std::count(functions.begin(), functions.end(),
                       reinterpret_cast<std::uintptr_t>(&greenlet_context_call)),
            1);
}

// Daemon threads of CPython up to 3.13 end like this when they meet a finalizing interpreter.
TEST(CallBelow, MayEndTheThread) {
  if (tests::kThreadSanitizer) {
    GTEST_SKIP() << "ThreadSanitizer hangs when a thread ends on another fiber than its own";
  }
  EXPECT_EQ(tests::in_child([] {
              pthread_t thread;
              pthread_create(
                  &thread, nullptr,
                  [](void*) -> void* {
                    // Never destroyed: a stack that a thread may be running on stays mapped.
                    (new Fiber([](Fiber& self, void*) {
                      return self.resumer().call_below(
                          [](void*) -> void* { pthread_exit(number(7)); }, nullptr);
                    }))->resume();
                    return nullptr;
                  },
                  nullptr);
              void* result = nullptr;
              return pthread_join(thread, &result) == 0 && result == number(7) ? 0 : 1;
            }),
            tests::exited(0));
}

// --- the thread's own stack -----------------------------------------------------------------

TEST(OwnStack, IsToldFromThatOfAnotherThread) {
  std::byte* const main = frame_address();
  EXPECT_TRUE(platform::is_on_own_stack(main));
  tests::in_threads(2, [&](int) {
    EXPECT_TRUE(platform::is_on_own_stack(frame_address()));
    EXPECT_FALSE(platform::is_on_own_stack(main));
  });
}

}  // namespace
}  // namespace greenlet::context
