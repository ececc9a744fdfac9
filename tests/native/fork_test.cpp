// fork(): the child goes on with the forking thread's regions, and no lock stays behind.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "child.h"
#include "memory.h"
#include "stack/stack.h"
#include "stack/testing.h"

namespace greenlet::stack {
namespace {

using tests::exited;
using tests::in_child;
using tests::killed;
using tests::Regions;

TEST(Fork, LeavesNoLockHeldInTheChild) {
  const tests::SettingsGuard restore;
  set_pool_bound(0);  // every acquire and release takes the reserve's mutex
  std::atomic<bool> stop = false;
  std::atomic<int> busy = 0;
  std::thread other([&] {
    Pool pool;
    Failure failure{};
    while (!stop) {
      pool.release(pool.acquire(failure));
      ++busy;
    }
  });
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  for (int i = 0; i < 100; ++i) {
    for (const int seen = busy; busy == seen;) {
      std::this_thread::yield();
    }
    ASSERT_EQ(in_child(
                  [&] {
                    Regions of_child(pool);
                    return of_child.acquire(3) ? 0 : 1;
                  },
                  10),
              exited(0))
        << "fork " << i;
  }
  stop = true;
  other.join();
}

TEST(Fork, KeepsRegionsTheirContentsAndTheirGuards) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(3));
  const Region region = regions.all()[1];
  region.boundary[-1] = std::byte{42};
  EXPECT_EQ(in_child([&] { return static_cast<int>(region.boundary[-1]); }), exited(42));
  EXPECT_EQ(in_child([&] {
              const volatile std::byte* low = region.low;
              return static_cast<int>(low[-1]);
            }),
            killed(SIGSEGV));
  EXPECT_EQ(in_child([&] {
              regions.release();
              return statistics().in_use == 0 && regions.acquire(100) ? 0 : 1;
            }),
            exited(0));
}

}  // namespace
}  // namespace greenlet::stack
