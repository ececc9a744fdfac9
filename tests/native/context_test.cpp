// Contexts as flows of control: messages, stacks, very many switches, ends.
#include "context/context.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "child.h"
#include "fiber.h"
#include "memory.h"

namespace greenlet::context {
namespace {

using tests::Fiber;

void* number(std::uintptr_t value) { return reinterpret_cast<void*>(value); }
std::uintptr_t number(void* value) { return reinterpret_cast<std::uintptr_t>(value); }

TEST(Context, PassesMessagesBothWays) {
  Fiber fiber([](Fiber& self, void* message) {
    EXPECT_EQ(number(message), 1U);
    EXPECT_EQ(number(self.suspend(number(2))), 3U);
    EXPECT_EQ(number(self.suspend(number(4))), 5U);
    return number(6);
  });
  EXPECT_EQ(number(fiber.resume(number(1))), 2U);
  EXPECT_EQ(number(fiber.resume(number(3))), 4U);
  EXPECT_FALSE(fiber.done());
  EXPECT_EQ(number(fiber.resume(number(5))), 6U);
  EXPECT_TRUE(fiber.done());
}

TEST(Context, RunsOnItsOwnStack) {
  Fiber fiber([](Fiber& self, void*) {
    std::byte here{};
    self.suspend(&here);
    return nullptr;
  });
  const auto* local = static_cast<std::byte*>(fiber.resume());
  if (!tests::kAddressSanitizer) {  // which keeps locals elsewhere
    EXPECT_GE(local, fiber.region().low);
    EXPECT_LT(local, fiber.region().boundary);
  }
  EXPECT_GE(fiber.context().stack_pointer(), fiber.region().low);
  EXPECT_LT(fiber.context().stack_pointer(), fiber.region().boundary);
  fiber.resume();
}

// The calling convention promises this to every function, and vector instructions rely on it.
TEST(Context, StartsWithAnAlignedStack) {
  Fiber fiber([](Fiber& self, void*) {
    alignas(16) std::byte here{};
    return self.suspend(&here);
  });
  EXPECT_EQ(number(fiber.resume()) % 16, 0U);
  fiber.resume();
}

TEST(Context, TouchesOnePageInAll) {
  if (tests::kSanitizer) {
    GTEST_SKIP() << "instrumented frames are larger";
  }
  for (int i = 0; i < 3; ++i) {
    Fiber fiber([](Fiber& self, void*) { return self.suspend(); });
    fiber.resume();
    const auto used =
        static_cast<std::size_t>(fiber.region().boundary - fiber.context().stack_pointer());
    EXPECT_LT(used, 1024U);
    fiber.resume();
  }
}

TEST(Context, SwitchesMillionsOfTimes) {
  constexpr std::uintptr_t kRounds = tests::kSanitizer ? 100'000 : 3'000'000;
  Fiber fiber([](Fiber& self, void* message) {
    while (message != nullptr) {
      message = self.suspend(number(number(message) + 1));
    }
    return message;
  });
  for (std::uintptr_t i = 1; i <= kRounds; ++i) {
    ASSERT_EQ(number(fiber.resume(number(i))), i + 1);
  }
  fiber.resume(nullptr);
  EXPECT_TRUE(fiber.done());
}

// Each context switches straight to the next one, not back to the one that has resumed it.
TEST(Context, PassesTheTurnAroundARing) {
  constexpr std::size_t kContexts = 1000;
  constexpr std::uintptr_t kRounds = tests::kSanitizer ? 3 : 100;
  struct Ring {
    std::vector<std::unique_ptr<Fiber>> fibers;
    Context outside;
    std::uintptr_t steps = 0;
    std::size_t ended = 0;
  } ring;
  for (std::size_t i = 0; i < kContexts; ++i) {
    ring.fibers.push_back(std::make_unique<Fiber>([](Fiber&, void*) { return nullptr; }));
  }
  // Prepared again, with an entry that knows the ring. They run on the stacks of the fibers.
  static Ring* const current = &ring;
  static std::size_t entering;
  for (const auto& fiber : ring.fibers) {
    fiber->context().prepare(fiber->region().low, fiber->region().boundary, [](void*) {
      const std::size_t self = entering;
      ExceptionGlobals* live = thread_exception_globals();
      Context& here = current->fibers[self]->context();
      for (std::uintptr_t round = 0; round < kRounds; ++round) {
        ++current->steps;
        const std::size_t next = (self + 1) % kContexts;
        if (round == 0) {
          entering = next;
        }
        here.switch_to(current->fibers[next]->context(), live, nullptr);
      }
      ++current->ended;
      here.leave_for(
          current->ended == kContexts ? current->outside : current->fibers[self + 1]->context(),
          live, nullptr);
    });
  }
  entering = 0;
  ring.outside.switch_to(ring.fibers[0]->context(), thread_exception_globals(), nullptr);
  EXPECT_EQ(ring.steps, kContexts * kRounds);
  EXPECT_EQ(ring.ended, kContexts);
}

TEST(Context, ResumesAnotherFromWithinOne) {
  Fiber inner([](Fiber& self, void* message) {
    message = self.suspend(number(number(message) * 2));
    return number(number(message) * 3);
  });
  Fiber outer([&](Fiber& self, void* message) {
    message = self.suspend(inner.resume(message));
    return inner.resume(message);
  });
  EXPECT_EQ(number(outer.resume(number(5))), 10U);
  EXPECT_EQ(number(outer.resume(number(7))), 21U);
}

TEST(Context, KeepsDeepStacksApart) {
  struct Recursion {
    static std::uintptr_t down(Fiber& self, std::uintptr_t depth) {
      volatile std::uintptr_t mine = depth;
      if (depth == 0) {
        self.suspend();
        return 0;
      }
      const std::uintptr_t below = down(self, depth - 1);
      return below + mine;
    }
  };
  std::vector<std::unique_ptr<Fiber>> fibers;
  for (std::uintptr_t i = 0; i < 20; ++i) {
    fibers.push_back(std::make_unique<Fiber>(
        [i](Fiber& self, void*) { return number(Recursion::down(self, 1000 + i)); }));
    fibers.back()->resume();
  }
  for (std::uintptr_t i = 20; i-- > 0;) {
    const std::uintptr_t depth = 1000 + i;
    EXPECT_EQ(number(fibers[i]->resume()), depth * (depth + 1) / 2);
  }
}

TEST(Context, LivesAndEndsManyTimesOnTheSameStack) {
  std::uintptr_t sum = 0;
  const std::uintptr_t lives = tests::kSanitizer ? 5000 : 100'000;
  for (std::uintptr_t i = 0; i < lives; ++i) {
    Fiber fiber([](Fiber&, void* message) { return message; });
    sum += number(fiber.resume(number(i)));
  }
  EXPECT_EQ(sum, lives * (lives - 1) / 2);
}

TEST(Context, BelongsToItsThreadAndManyThreadsSwitchAtOnce) {
  std::atomic<int> errors = 0;
  tests::in_threads(4, [&](int index) {
    for (int life = 0; life < 50; ++life) {
      Fiber fiber([index](Fiber& self, void* message) {
        for (int i = 0; i < 100; ++i) {
          message = self.suspend(number(number(message) + static_cast<unsigned>(index)));
        }
        return message;
      });
      std::uintptr_t expected = 0;
      std::uintptr_t seen = 0;
      for (int i = 0; i < 100; ++i) {
        seen = number(fiber.resume(number(seen)));
        expected += static_cast<unsigned>(index);
        errors += seen != expected;
      }
      fiber.resume();
      errors += !fiber.done();
    }
  });
  EXPECT_EQ(errors, 0);
}

}  // namespace
}  // namespace greenlet::context
