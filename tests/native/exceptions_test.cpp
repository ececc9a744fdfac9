// C++ exceptions thrown, caught and under way on several contexts of one thread.
#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "child.h"
#include "fiber.h"

namespace greenlet::context {
namespace {

using tests::Fiber;

[[gnu::noinline]] void fail(const std::string& text) { throw std::runtime_error(text); }

std::string current() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  }
}

TEST(Exceptions, AreThrownAndCaughtInsideAContext) {
  int destroyed = 0;
  struct Local {
    int& count;
    ~Local() { ++count; }
  };
  Fiber fiber([&](Fiber&, void*) {
    for (int i = 0; i < 100; ++i) {
      try {
        const Local local{destroyed};
        fail("inside");
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "inside");
      }
    }
    return nullptr;
  });
  fiber.resume();
  EXPECT_TRUE(fiber.done());
  EXPECT_EQ(destroyed, 100);
}

// The order of switches is one that a stack of caught exceptions, shared by both sides, cannot
// follow: each side leaves its catch blocks while the other is still inside its own.
TEST(Exceptions, StayWithTheContextThatHandlesThem) {
  Fiber fiber([](Fiber& self, void*) {
    try {
      fail("inner 1");
    } catch (...) {
      self.suspend();
      EXPECT_EQ(current(), "inner 1");
      try {
        fail("inner 2");
      } catch (...) {
        self.suspend();
        EXPECT_EQ(current(), "inner 2");
      }
      self.suspend();
      EXPECT_EQ(current(), "inner 1");
    }
    EXPECT_EQ(std::current_exception(), nullptr);
    self.suspend();
    return nullptr;
  });
  EXPECT_EQ(std::current_exception(), nullptr);
  try {
    fail("outer 1");
  } catch (...) {
    fiber.resume();  // now inside "inner 1"
    EXPECT_EQ(current(), "outer 1");
    try {
      fail("outer 2");
    } catch (...) {
      fiber.resume();  // now inside "inner 2"
      EXPECT_EQ(current(), "outer 2");
    }
    EXPECT_EQ(current(), "outer 1");
    fiber.resume();  // back inside "inner 1"
    EXPECT_EQ(current(), "outer 1");
  }
  EXPECT_EQ(std::current_exception(), nullptr);
  fiber.resume();  // outside of all
  EXPECT_EQ(std::current_exception(), nullptr);
  fiber.resume();
  EXPECT_TRUE(fiber.done());
}

TEST(Exceptions, AreRethrownAfterASwitchInsideACatchBlock) {
  Fiber fiber([](Fiber& self, void*) {
    try {
      try {
        fail("inner");
      } catch (...) {
        self.suspend();
        throw;
      }
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "inner");
    }
    return nullptr;
  });
  try {
    try {
      fail("outer");
    } catch (...) {
      fiber.resume();
      throw;
    }
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "outer");
    fiber.resume();
    EXPECT_TRUE(fiber.done());
    EXPECT_EQ(current(), "outer");
  }
}

TEST(Exceptions, StartFromNothingInAContextBegunInsideACatchBlock) {
  try {
    fail("outer");
  } catch (...) {
    Fiber fiber([](Fiber&, void*) {
      EXPECT_EQ(std::current_exception(), nullptr);
      EXPECT_EQ(std::uncaught_exceptions(), 0);
      return nullptr;
    });
    fiber.resume();
    EXPECT_TRUE(fiber.done());
    EXPECT_EQ(current(), "outer");
  }
}

struct ResumeWhenDestroyed {
  Fiber& fiber;
  ~ResumeWhenDestroyed() {
    EXPECT_EQ(std::uncaught_exceptions(), 1);
    fiber.resume();
    EXPECT_EQ(std::uncaught_exceptions(), 1);
  }
};

TEST(Exceptions, UnderWayAreCountedPerContext) {
  Fiber fiber([](Fiber& self, void*) {
    EXPECT_EQ(std::uncaught_exceptions(), 0);
    try {
      fail("inner");
    } catch (const std::runtime_error&) {
      EXPECT_EQ(std::uncaught_exceptions(), 0);
    }
    self.suspend();
    return nullptr;
  });
  try {
    const ResumeWhenDestroyed local{fiber};
    fail("outer");
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "outer");
  }
  EXPECT_EQ(std::uncaught_exceptions(), 0);
  fiber.resume();
  EXPECT_TRUE(fiber.done());
}

TEST(Exceptions, OfManyContextsMixInAnyOrder) {
  constexpr int kFibers = 20;
  std::vector<std::unique_ptr<Fiber>> fibers;
  for (int i = 0; i < kFibers; ++i) {
    fibers.push_back(std::make_unique<Fiber>([i](Fiber& self, void*) {
      for (int round = 0; round < 20; ++round) {
        const std::string text = std::to_string(i) + "." + std::to_string(round);
        try {
          fail(text);
        } catch (...) {
          self.suspend();
          EXPECT_EQ(current(), text);
        }
        self.suspend();
      }
      return nullptr;
    }));
  }
  for (int step = 0; step < 41; ++step) {
    for (int i = 0; i < kFibers; ++i) {
      fibers[static_cast<std::size_t>(i * 7 % kFibers)]->resume();
    }
  }
  for (const auto& fiber : fibers) {
    EXPECT_TRUE(fiber->done());
  }
}

// Nothing could catch it. It must not run into the memory beyond the stack.
TEST(Exceptions, ThatLeaveTheEntryTerminate) {
  EXPECT_EQ(tests::in_child([] {
              std::set_terminate([] { _exit(current() == "lost" ? 42 : 1); });
              Fiber fiber([](Fiber&, void*) -> void* {
                fail("lost");
                return nullptr;
              });
              fiber.resume();
              return 2;
            }),
            tests::exited(42));
}

}  // namespace
}  // namespace greenlet::context
