// Everything that walks the stack finds its end: backtraces, and the forced unwinding that ends a
// thread.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unwind.h>
#if __has_include(<execinfo.h>)
#include <execinfo.h>
#endif

#include <vector>

#include "architecture.h"
#include "child.h"
#include "fiber.h"

namespace greenlet::context {

extern "C" void greenlet_context_begin() noexcept;

namespace {

using tests::exited;
using tests::Fiber;
using tests::in_child;

struct Walk {
  _Unwind_Reason_Code reason = _URC_NO_REASON;
  std::vector<std::uintptr_t> functions;
};

[[gnu::noinline]] Walk walk() {
  Walk result;
  result.reason = _Unwind_Backtrace(
      [](_Unwind_Context* frame, void* argument) {
        auto& functions = static_cast<Walk*>(argument)->functions;
        functions.push_back(_Unwind_GetRegionStart(frame));
        return functions.size() < 200 ? _URC_NO_REASON : tests::kStopWalk;
      },
      &result);
  return result;
}

[[gnu::noinline]] Walk walk_deeper(int depth) {
  if (depth == 0) {
    return walk();
  }
  Walk result = walk_deeper(depth - 1);
  asm volatile("" : : : "memory");  // no tail call
  return result;
}

TEST(Unwinding, EndsAtTheFirstFrameOfAContext) {
  Fiber fiber([](Fiber& self, void*) {
    for (const int depth : {0, 10}) {
      const Walk found = walk_deeper(depth);
      EXPECT_EQ(found.reason, tests::kEndOfWalk);
      EXPECT_LT(found.functions.size(), 40U);
      EXPECT_GT(found.functions.size(), static_cast<std::size_t>(depth));
      if (tests::kWalksLastFrame) {
        EXPECT_EQ(found.functions.back(),
                  reinterpret_cast<std::uintptr_t>(&greenlet_context_begin));
      }
      self.suspend();  // and again after having been away
    }
    return nullptr;
  });
  fiber.resume();
  fiber.resume();
  fiber.resume();
  EXPECT_TRUE(fiber.done());
}

#if __has_include(<execinfo.h>)  // musl has no backtrace()
TEST(Unwinding, EndsForTheCLibraryToo) {
  Fiber fiber([](Fiber&, void*) {
    std::vector<void*> frames(200);
    const int count = backtrace(frames.data(), 200);
    EXPECT_GT(count, tests::kWalksLastFrame ? 2 : 1);
    EXPECT_LT(count, 40);
    return nullptr;
  });
  fiber.resume();
}
#endif

// The program's own frames keep their unwind information while a fiber is away from them.
TEST(Unwinding, OfTheResumerIsUnchanged) {
  const std::size_t before = walk().functions.size();
  Fiber fiber([](Fiber& self, void*) { return self.suspend(); });
  fiber.resume();
  EXPECT_EQ(walk().functions.size(), before);
  fiber.resume();
  EXPECT_EQ(walk().functions.size(), before);
}

// CPython up to 3.13 ends a daemon thread that meets a finalizing interpreter by pthread_exit,
// wherever it is. In a child process: the failure would be std::terminate or a crash.
#ifdef __GLIBC__
constexpr bool kPthreadExitUnwinds = true;
#else
constexpr bool kPthreadExitUnwinds = false;  // musl leaves the stack as it is
#endif

class ThreadExit : public ::testing::Test {
 protected:
  void SetUp() override {
    if (tests::kThreadSanitizer) {
      GTEST_SKIP()
          << "ThreadSanitizer hangs when a thread ends while on another fiber than its own";
    }
  }
};

struct Ended {
  int cleaned = 0;
  int thread_locals = 0;
};
Ended ended;

struct Cleanup {
  ~Cleanup() { ++ended.cleaned; }
};
struct ThreadLocal {
  int used = 0;
  ~ThreadLocal() { ++ended.thread_locals; }
};
thread_local ThreadLocal thread_local_object;

volatile bool go_on = true;  // lest the compiler sees that this never returns

[[gnu::noinline]] void exit_thread(int depth) {
  const Cleanup cleanup;
  if (depth > 0) {
    exit_thread(depth - 1);
    asm volatile("" : : : "memory");
  } else if (go_on) {
    pthread_exit(&ended);
  }
}

int join_a_thread_that(void* (*body)(void*)) {
  ended = Ended{};
  pthread_t thread;
  pthread_create(&thread, nullptr, body, nullptr);
  void* result = nullptr;
  if (pthread_join(thread, &result) != 0 || result != &ended) {
    return 1;
  }
  if (ended.cleaned != (kPthreadExitUnwinds ? 6 : 0)) {
    return 2;
  }
  return ended.thread_locals == 1 ? 0 : 3;
}

// Never destroyed: a stack that a thread may be running on stays mapped, as core does it.
Fiber& immortal(Fiber::Body body) { return *new Fiber(std::move(body)); }

TEST_F(ThreadExit, InsideAContextEndsTheThreadCleanly) {
  EXPECT_EQ(in_child([] {
              return join_a_thread_that([](void*) -> void* {
                thread_local_object.used = 1;
                immortal([](Fiber&, void*) -> void* {
                  exit_thread(5);
                  return nullptr;
                }).resume();
                return nullptr;
              });
            }),
            exited(0));
}

TEST_F(ThreadExit, InsideANestedContextThatWasSuspendedEndsTheThreadCleanly) {
  EXPECT_EQ(in_child([] {
              return join_a_thread_that([](void*) -> void* {
                thread_local_object.used = 1;
                Fiber& inner = immortal([](Fiber& self, void*) -> void* {
                  self.suspend();
                  exit_thread(5);
                  return nullptr;
                });
                inner.resume();
                immortal([&](Fiber&, void*) { return inner.resume(); }).resume();
                return nullptr;
              });
            }),
            exited(0));
}

TEST_F(ThreadExit, ByCancellationInsideAContextEndsTheThreadCleanly) {
  EXPECT_EQ(in_child([] {
              pthread_t thread;
              pthread_create(
                  &thread, nullptr,
                  [](void*) -> void* {
                    immortal([](Fiber&, void*) -> void* {
                      pthread_cancel(pthread_self());
                      pthread_testcancel();
                      return nullptr;
                    }).resume();
                    return nullptr;
                  },
                  nullptr);
              void* result = nullptr;
              return pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED ? 0 : 1;
            }),
            exited(0));
}

}  // namespace
}  // namespace greenlet::context
