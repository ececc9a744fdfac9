// What a thread's pool and the process-wide reserve behind it do with regions.
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <random>
#include <vector>

#include "child.h"
#include "memory.h"
#include "platform/testing.h"
#include "stack/stack.h"
#include "stack/testing.h"
#include "stack/trimmer.h"

namespace greenlet::stack {
namespace {

using tests::exited;
using tests::in_child;
using tests::in_threads;
using tests::Regions;
using tests::resident_bytes;
using tests::SettingsGuard;

constexpr std::size_t kKilobyte = 1024;
constexpr std::size_t kMegabyte = 1024 * kKilobyte;
// What a pooled region may hold in memory, what all pools may hold together, and what each pool may
// hold in addition.
constexpr std::size_t kMostOfOne = 168 * kKilobyte;
constexpr std::size_t kMostOfAll = 2 * kMegabyte;
constexpr std::size_t kMostBesides = kMostOfOne;

std::size_t resident_bytes_of(const std::vector<Region>& regions) {
  std::size_t bytes = 0;
  for (const Region& region : regions) {
    bytes += resident_bytes(region);
  }
  return bytes;
}

TEST(Pool, ReusesTheLastReleasedRegionFirst) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(10));
  const std::vector<Region> released = regions.all();
  regions.release();
  ASSERT_TRUE(regions.acquire(10));
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(regions.all()[i].low, released[9 - i].low);
  }
}

TEST(Pool, KeepsTheMemoryOfAShallowRegion) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  region.boundary[-1] = std::byte{42};
  for (int i = 0; i < 100; ++i) {
    regions.release();
    ASSERT_TRUE(regions.acquire(1));
    ASSERT_EQ(regions.all()[0].low, region.low);
    ASSERT_EQ(region.boundary[-1], std::byte{42});
  }
}

TEST(Pool, KeepsNoMoreThanItsBound) {
  const SettingsGuard restore;
  set_pool_bound(10);
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(100));
  const std::vector<Region> released = regions.all();
  for (const Region& region : released) {
    tests::touch_stack(region, 1);
  }
  regions.release();
  // What goes back to the reserve holds no memory (or is unmapped, which counts as none).
  EXPECT_GE(resident_bytes_of(released), tests::page_size());
  EXPECT_LE(resident_bytes_of(released), 10 * tests::page_size());
}

TEST(Pool, KeepsNothingWithABoundOfZero) {
  const SettingsGuard restore;
  set_pool_bound(0);
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(5));
  const std::vector<Region> released = regions.all();
  for (const Region& region : released) {
    tests::touch_stack(region, 1);
  }
  regions.release();
  EXPECT_EQ(resident_bytes_of(released), 0U);
  EXPECT_TRUE(regions.acquire(5));
}

TEST(Pool, FollowsALoweredBoundAtTheNextRelease) {
  const SettingsGuard restore;
  set_pool_bound(100);
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(100));
  const std::vector<Region> released = regions.all();
  for (const Region& region : released) {
    tests::touch_stack(region, 1);
  }
  regions.release();
  EXPECT_GE(resident_bytes_of(released), 50 * tests::page_size());
  set_pool_bound(10);
  ASSERT_TRUE(regions.acquire(1));
  regions.release();
  EXPECT_LE(resident_bytes_of(released), 10 * tests::page_size());
}

TEST(Pool, GivesItsRegionsToOthersWhenItsThreadEnds) {
  Pool pool;
  Regions regions(pool);
  const Statistics before = statistics();
  in_threads(4, [](int) {
    Pool of_thread;
    Regions in_thread(of_thread);
    ASSERT_TRUE(in_thread.acquire(16));
  });
  const Statistics after = statistics();
  EXPECT_EQ(after.in_use, before.in_use);
  ASSERT_TRUE(regions.acquire(16));
  EXPECT_EQ(statistics().reserved, after.reserved);
}

TEST(Pool, MapsNoMoreThanAQuarterAhead) {
  Pool pool;
  Regions regions(pool);
  const std::size_t batch = for_tests::regions_per_batch();
  const std::size_t before = statistics().reserved;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(regions.acquire(batch));
    const std::size_t used = statistics().in_use;
    EXPECT_LE(statistics().reserved, before + used + std::max(used / 4, 2 * batch));
  }
}

TEST(Pool, MapsLittleForAHandful) {
  EXPECT_EQ(
      in_child([] {
        const SettingsGuard restore;
        set_default_size(8 * kMegabyte + 42 * tests::page_size());  // nothing of it in reserve
        Pool pool;
        Regions regions(pool);
        const std::size_t before = statistics().reserved;
        for (std::size_t count = 1; count <= 64; ++count) {
          if (!regions.acquire(1) ||
              statistics().reserved > std::max(before, std::size_t{4}) + 2 * count) {
            return static_cast<int>(count);
          }
        }
        return 0;
      }),
      exited(0));
}

TEST(Pool, OfOneSizeUsesNoRegionsOfAnother) {
  const SettingsGuard restore;
  set_default_size(kMegabyte);
  Pool pool;
  Failure failure{};
  const Region large = pool.acquire(16 * kMegabyte, failure);
  ASSERT_TRUE(large);
  EXPECT_GE(large.stack_bytes(), 16 * kMegabyte);
  tests::touch(large.low, large.low + 1);
  tests::touch_stack(large, 1);
  const std::size_t in_use = statistics().in_use;
  pool.release(large);
  EXPECT_EQ(statistics().in_use, in_use - 1);
  EXPECT_EQ(resident_bytes(large), 0U) << "regions of other sizes are not kept by the pool";
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(10));
  for (const Region& region : regions.all()) {
    EXPECT_LT(region.stack_bytes(), 2 * kMegabyte);
  }
}

TEST(Pool, IsEmptiedForItsFamilyAlone) {
  const int families[2] = {};
  Pool one;
  Pool other;
  one.join(&families[0]);
  other.join(&families[1]);
  std::vector<Region> released[2];
  for (Pool* pool : {&one, &other}) {
    Regions regions(*pool);
    ASSERT_TRUE(regions.acquire(20));
    for (const Region& region : regions.all()) {
      tests::touch_stack(region, 1);
    }
    released[pool == &other] = regions.all();
  }
  empty_pools(&families[0]);
  EXPECT_EQ(resident_bytes_of(released[0]), 0U);
  EXPECT_EQ(resident_bytes_of(released[1]), 20 * tests::page_size());
  Regions regions(one);
  EXPECT_TRUE(regions.acquire(20));
}

// For threads whose own stacks have different sizes.
TEST(Size, OfEachPoolMayDiffer) {
  const SettingsGuard restore;
  set_default_size(8 * kMegabyte);
  Pool pool;
  std::vector<Region> held;
  Failure failure{};
  const int rounds = platform::kShortOfAddresses ? 20 : 300;
  for (int i = 0; i < rounds; ++i) {
    for (const std::size_t size : {kMegabyte, 2 * kMegabyte, 32 * kMegabyte}) {
      held.push_back(pool.acquire(size, failure));
      ASSERT_GE(held.back().stack_bytes(), size);
      ASSERT_LT(held.back().stack_bytes(), size + size / 2);
    }
  }
  for (const Region& region : held) {
    pool.release(region);
  }
  const std::size_t reserved = statistics().reserved;
  for (int i = 0; i < 1000; ++i) {
    const Region region = pool.acquire(static_cast<std::size_t>(i % 3 + 1) * kMegabyte, failure);
    ASSERT_TRUE(region);
    pool.release(region);
  }
  EXPECT_LE(statistics().reserved, reserved + 64);
}

std::size_t size_in_thread_with(std::size_t stack_bytes) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  pthread_t thread;
  std::size_t size = 0;
  pthread_create(
      &thread, &attributes,
      [](void* result) -> void* {
        Pool pool;
        Failure failure{};
        const Region region = pool.acquire(failure);
        *static_cast<std::size_t*>(result) = region.stack_bytes();
        pool.release(region);
        return nullptr;
      },
      &size);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  return size;
}

TEST(Size, IsThatOfTheThreadAndAtLeastTheUsual) {
  const SettingsGuard restore;
  unset_default_size();
  EXPECT_GE(size_in_thread_with(256 * kMegabyte),
            platform::kShortOfAddresses ? kUsualSize : 256 * kMegabyte);
  EXPECT_GE(size_in_thread_with(256 * kKilobyte), kUsualSize);
  EXPECT_LT(size_in_thread_with(256 * kKilobyte), 2 * kUsualSize);
  set_default_size(kMegabyte);
  EXPECT_LT(size_in_thread_with(256 * kMegabyte), 2 * kMegabyte);
}

TEST(Size, IsReadAsPeopleWriteIt) {
  std::size_t bytes = 0;
  EXPECT_TRUE(parse_size("4096", bytes));
  EXPECT_EQ(bytes, 4096U);
  EXPECT_TRUE(parse_size("512K", bytes));
  EXPECT_EQ(bytes, 512 * kKilobyte);
  EXPECT_TRUE(parse_size("64m", bytes));
  EXPECT_EQ(bytes, 64 * kMegabyte);
  EXPECT_TRUE(parse_size("1G", bytes));
  EXPECT_EQ(bytes, 1024 * kMegabyte);
  for (const char* text : {"", "K", "-1", "+1", "1KB", "1 K", " 1", "0x10", "1.5M",
                           "99999999999999999999", "99999999999999999G"}) {
    EXPECT_FALSE(parse_size(text, bytes)) << text;
  }
}

TEST(Pool, UnmapsWhatALargeBurstLeavesBehind) {
  Pool pool;
  Regions regions(pool);
  const std::size_t before = statistics().reserved;
  const std::size_t burst = tests::as_far_as_addresses_go(5000);
  ASSERT_TRUE(regions.acquire(burst));
  EXPECT_GE(statistics().reserved, burst);
  regions.release();
  EXPECT_LE(statistics().reserved, before + pool_bound() + 600);
}

TEST(Pool, TakesRegionsThatAnotherPoolHandedOut) {
  Pool from;
  Pool to;
  const std::size_t before = statistics().in_use;
  Failure failure{};
  const Region region = from.acquire(failure);
  ASSERT_TRUE(region);
  EXPECT_EQ(statistics().in_use, before + 1);
  to.release(region);
  EXPECT_EQ(statistics().in_use, before);
  EXPECT_EQ(to.acquire(failure).low, region.low);
  to.release(region);
}

TEST(Pool, LeavesTheRegionsItHandedOutToOthersWhenItsThreadEnds) {
  Pool pool;
  const std::size_t before = statistics().in_use;
  Region region;
  in_threads(1, [&](int) {
    Pool of_thread;
    Failure failure{};
    region = of_thread.acquire(failure);
  });
  EXPECT_EQ(statistics().in_use, before + 1);
  tests::touch(region.low, region.high);
  pool.release(region);
  EXPECT_EQ(statistics().in_use, before);
}

TEST(Trimming, LowersResidentMemoryAfterADeepCall) {
  const SettingsGuard restore;
  set_default_size(8 * kMegabyte);
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  tests::touch_stack(region, 4 * kMegabyte);
  ASSERT_GE(stack::resident_bytes(), 4 * kMegabyte);
  const std::size_t before = stack::resident_bytes();
  regions.release();
  EXPECT_LE(resident_bytes(region), kMostOfOne);
  EXPECT_LE(stack::resident_bytes(), before - 4 * kMegabyte + kMostOfOne);
}

TEST(Trimming, ReachesTheDataAreaToo) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  tests::touch(region.boundary, region.high);
  regions.release();
  EXPECT_LE(resident_bytes(region), 64 * kKilobyte);
}

TEST(Trimming, SparesThePagesNearTheBoundary) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  tests::touch_stack(region, kMegabyte);
  regions.release();
  EXPECT_GE(resident_bytes(region), 16 * kKilobyte);
}

// A burst of deep calls after any number of shallow ones, and so with any interval between checks.
TEST(Trimming, NoticesABurstOfDeepCallsAmongManyShallowOnes) {
  Pool pool;
  Regions regions(pool);
  for (const int shallow : {0, 1, 5, 40, 100, 1000, 1000}) {
    for (int i = 0; i < shallow; ++i) {
      ASSERT_TRUE(regions.acquire(1));
      tests::touch_stack(regions.all()[0], 1);
      regions.release();
    }
    ASSERT_TRUE(regions.acquire(100));
    for (const Region& region : regions.all()) {
      tests::touch_stack(region, 300 * kKilobyte);
    }
    const std::vector<Region> released = regions.all();
    regions.release();
    EXPECT_LE(resident_bytes_of(released), kMostOfAll + kMostOfOne) << shallow << " shallow before";
  }
}

// One greenlet in `period` is deep. Checks may not coincide with shallow ones for long.
TEST(Trimming, NoticesRegularPatterns) {
  for (const int period : {2, 3, 4, 8, 16, 64}) {
    Pool pool;
    Regions regions(pool);
    std::vector<Region> seen;
    for (int i = 0; i < 64 * period; ++i) {
      ASSERT_TRUE(regions.acquire(1));
      tests::touch_stack(regions.all()[0], i % period == period - 1 ? 300 * kKilobyte : 1);
      seen.assign(regions.all().begin(), regions.all().end());
      regions.release();
    }
    for (int i = 0; i < 128; ++i) {
      ASSERT_TRUE(regions.acquire(1));
      regions.release();
    }
    EXPECT_LE(resident_bytes_of(seen), kMostOfOne) << "period " << period;
  }
}

// A burst leaves no more memory than this in the pools, however deep the greenlets were.
TEST(Budget, BoundsTheMemoryOfAPoolHoweverDeepItsRegionsAre) {
  for (const std::size_t depth :
       {kKilobyte, 8 * kKilobyte, 40 * kKilobyte, 140 * kKilobyte, kMegabyte}) {
    Pool pool;
    Regions regions(pool);
    ASSERT_TRUE(regions.acquire(700));
    for (const Region& region : regions.all()) {
      tests::touch_stack(region, depth);
    }
    const std::vector<Region> released = regions.all();
    regions.release();
    // The last few may be deeper than was known when they were released.
    EXPECT_LE(resident_bytes_of(released), kMostOfAll + 2 * kMostOfOne) << depth;
    EXPECT_GE(resident_bytes_of(released), kMegabyte) << depth;
  }
}

TEST(Budget, IsSharedByAllPools) {
  constexpr int kPools = 20;
  std::vector<std::unique_ptr<Pool>> pools;
  std::vector<Region> released;
  for (int i = 0; i < kPools; ++i) {
    pools.push_back(std::make_unique<Pool>());
    Regions regions(*pools.back());
    ASSERT_TRUE(regions.acquire(200));
    for (const Region& region : regions.all()) {
      tests::touch_stack(region, 40 * kKilobyte);
    }
    released.insert(released.end(), regions.all().begin(), regions.all().end());
  }
  EXPECT_LE(stack::resident_bytes(), kMostOfAll + kPools * kMostBesides);
  EXPECT_LE(resident_bytes_of(released), kMostOfAll + kPools * kMostBesides);
}

TEST(Budget, ComesBackWhenAPoolGoes) {
  for (int i = 0; i < 30; ++i) {
    Pool pool;
    Regions regions(pool);
    ASSERT_TRUE(regions.acquire(700));
    for (const Region& region : regions.all()) {
      tests::touch_stack(region, 1);
    }
    const std::vector<Region> released = regions.all();
    regions.release();
    ASSERT_GE(resident_bytes_of(released), kMegabyte) << i;
  }
}

TEST(Budget, LeavesEveryPoolOneRegion) {
  Pool rich;
  Regions many(rich);
  ASSERT_TRUE(many.acquire(2000));
  for (const Region& region : many.all()) {
    tests::touch_stack(region, 1);
  }
  many.release();
  Pool poor;
  Regions regions(poor);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  for (int i = 0; i < 100; ++i) {
    tests::touch_stack(region, 100 * kKilobyte);
    regions.release();
    ASSERT_GE(resident_bytes(region), 100 * kKilobyte);
    ASSERT_TRUE(regions.acquire(1));
    ASSERT_EQ(regions.all()[0].low, region.low);
  }
}

TEST(Decay, GivesBackWhatWasNotNeeded) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(400));
  for (const Region& region : regions.all()) {
    tests::touch_stack(region, 1);
  }
  const std::vector<Region> released = regions.all();
  regions.release();
  pool.decay();  // all were needed
  EXPECT_GE(resident_bytes_of(released), 400 * tests::page_size());
  ASSERT_TRUE(regions.acquire(100));
  regions.release();
  pool.decay();
  EXPECT_GE(resident_bytes_of(released), 100 * tests::page_size());
  EXPECT_LE(resident_bytes_of(released), 120 * tests::page_size());
  pool.decay();
  EXPECT_LE(resident_bytes_of(released), 20 * tests::page_size());
}

TEST(Decay, FindsDeepOnesThatNoCheckHasNoticed) {
  const SettingsGuard restore;
  set_default_size(8 * kMegabyte);
  Pool pool;
  Regions regions(pool);
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(regions.acquire(1));
    tests::touch_stack(regions.all()[0], 1);
    regions.release();
  }
  ASSERT_TRUE(regions.acquire(30));
  for (const Region& region : regions.all()) {
    tests::touch_stack(region, 2 * kMegabyte);
  }
  const std::vector<Region> released = regions.all();
  regions.release();
  pool.decay();
  pool.decay();
  EXPECT_LE(resident_bytes_of(released), 64 * kKilobyte);
}

TEST(Trim, EmptiesThePoolAndTellsHowMuchThatWas) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(100));
  for (const Region& region : regions.all()) {
    tests::touch_stack(region, 1);
  }
  const std::vector<Region> released = regions.all();
  regions.release();
  const std::size_t before = stack::resident_bytes();
  Trimmer trimmer(Trimmer::Counts::kYes);
  pool.trim(trimmer);
  EXPECT_GE(trimmer.given_back(), 100 * tests::page_size());
  EXPECT_EQ(stack::resident_bytes(), before - trimmer.given_back());
  EXPECT_EQ(resident_bytes_of(released), 0U);
  trim_reserve();
  EXPECT_EQ(statistics().reserved, 0U);
  EXPECT_TRUE(regions.acquire(10));
}

class Trimmers : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { platform::for_tests::switches.drop_one_by_one = GetParam(); }
  void TearDown() override { platform::for_tests::switches.drop_one_by_one = false; }
};
INSTANTIATE_TEST_SUITE_P(Ways, Trimmers, testing::Bool(),
                         [](const auto& way) { return way.param ? "OneByOne" : "Together"; });

// The sweep does this with greenlets that wait. These are more than one system call takes.
TEST_P(Trimmers, KeepsWhatIsInUseAndTheGuard) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(100));
  const std::size_t page = tests::page_size();
  Trimmer trimmer;
  for (const Region& region : regions.all()) {
    tests::touch_stack(region, 20 * page);
    tests::touch(region.boundary, region.boundary + 10 * page);
    region.boundary[-5 * static_cast<std::ptrdiff_t>(page)] = std::byte{42};
    region.boundary[2 * page] = std::byte{43};
    trimmer.drop_all_but(region, region.boundary - 5 * page, region.boundary + 2 * page + 1);
  }
  trimmer.flush();
  for (const Region& region : regions.all()) {
    ASSERT_EQ(resident_bytes(region), 8 * page);
    ASSERT_EQ(region.boundary[-5 * static_cast<std::ptrdiff_t>(page)], std::byte{42});
    ASSERT_EQ(region.boundary[2 * page], std::byte{43});
  }
  const Region region = regions.all()[50];
  tests::touch(region.low, region.boundary);
  EXPECT_DEATH(tests::touch(region.low - 1, region.low), "");
}

TEST(Trimmer, KeepsOneByteOrNothingOrAll) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  const auto after = [&](const std::byte* begin, const std::byte* end) {
    tests::touch(region.low, region.high);
    Trimmer trimmer;
    trimmer.drop_all_but(region, begin, end);
    trimmer.flush();
    return resident_bytes(region);
  };
  const auto all = static_cast<std::size_t>(region.high - region.low);
  EXPECT_EQ(after(region.boundary, region.boundary), tests::page_size());
  EXPECT_EQ(after(region.low, region.low + 1), tests::page_size());
  EXPECT_EQ(after(region.high - 1, region.high), tests::page_size());
  EXPECT_EQ(after(region.low, region.high), all);
  EXPECT_EQ(after(region.low - 100, region.high + 100), all);
  Trimmer trimmer;
  trimmer.drop_all(region);
  trimmer.flush();
  EXPECT_EQ(resident_bytes(region), 0U);
}

TEST(Size, ChangesForRegionsAcquiredLater) {
  const SettingsGuard restore;
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(20));
  regions.release();
  ASSERT_TRUE(set_default_size(kMegabyte));
  ASSERT_TRUE(regions.acquire(20));
  for (const Region& region : regions.all()) {
    EXPECT_GE(region.stack_bytes(), kMegabyte);
    EXPECT_LT(region.stack_bytes(), kMegabyte + tests::page_size());
  }
}

TEST(Size, LeavesRegionsInUseAloneAndDoesNotHandThemOutAgain) {
  const SettingsGuard restore;
  Pool pool;
  Regions old(pool);
  ASSERT_TRUE(old.acquire(20));
  ASSERT_TRUE(set_default_size(kMegabyte));
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(5));
  for (const Region& region : old.all()) {
    tests::touch(region.low, region.low + 1);
  }
  old.release();
  ASSERT_TRUE(regions.acquire(100));
  for (const Region& region : regions.all()) {
    ASSERT_LT(region.stack_bytes(), 2 * kMegabyte);
  }
}

TEST(Size, UnmapsWhatIsOutdated) {
  const SettingsGuard restore;
  Pool pool;
  Regions regions(pool);
  const auto change = [&](std::size_t bytes) {
    ASSERT_TRUE(set_default_size(bytes));
    ASSERT_TRUE(regions.acquire(10));
    regions.release();
  };
  change(kMegabyte);
  const std::size_t reserved = statistics().reserved;
  for (int i = 0; i < 20; ++i) {
    change(2 * kMegabyte);
    change(3 * kMegabyte);
    change(kMegabyte);
  }
  EXPECT_LE(statistics().reserved, reserved + 2 * for_tests::regions_per_batch());
}

TEST(Size, IsRoundedUpToPagesAndRefusedOutOfRange) {
  const SettingsGuard restore;
  EXPECT_EQ(default_size(), kUsualSize);
  EXPECT_FALSE(set_default_size(0));
  EXPECT_FALSE(set_default_size(kMinSize - 1));
  EXPECT_FALSE(set_default_size(kMaxSize + 1));
  EXPECT_FALSE(set_default_size(~std::size_t{0}));
  EXPECT_EQ(default_size(), kUsualSize);
  EXPECT_TRUE(set_default_size(kMinSize + 1));
  EXPECT_EQ(default_size(), kMinSize + tests::page_size());
  for (const std::size_t size : {kMinSize, kMaxSize}) {
    EXPECT_TRUE(set_default_size(size));
    Pool pool;
    Regions regions(pool);
    ASSERT_TRUE(regions.acquire(3)) << size;
    tests::touch(regions.all()[2].low, regions.all()[2].low + 1);
  }
}

TEST(Statistics, CountRegionsWhereverTheyAre) {
  Pool pool;
  Regions regions(pool);
  const Statistics before = statistics();
  ASSERT_TRUE(regions.acquire(10));
  Statistics now = statistics();
  EXPECT_EQ(now.in_use, before.in_use + 10);
  EXPECT_EQ(now.reserved, now.in_use + now.pooled);
  const std::size_t resident = stack::resident_bytes();
  tests::touch_stack(regions.all()[3], 5 * tests::page_size());
  EXPECT_GE(stack::resident_bytes(), resident + 5 * tests::page_size());
  regions.release();
  now = statistics();
  EXPECT_EQ(now.in_use, before.in_use);
  EXPECT_EQ(now.reserved, now.in_use + now.pooled);
}

// Every thread marks the regions it holds; a mark that changes means that two had one region.
TEST(Threads, NeverShareARegion) {
  const SettingsGuard restore;
  set_pool_bound(8);  // so that the reserve is busy
  constexpr int kThreads = 4;
  const int rounds = tests::kThreadSanitizer ? 1000 : 20'000;
  std::atomic<int> running = kThreads;
  std::atomic<int> errors = 0;
  in_threads(kThreads + 1, [&](int index) {
    if (index == kThreads) {
      // While the others run: changes settings and reads statistics.
      for (std::size_t i = 0; running > 0; ++i) {
        set_default_size((i % 3 + 1) * kMegabyte);
        const Statistics now = statistics();
        errors += now.in_use > now.reserved;
        set_pool_bound(i % 20);
        std::this_thread::yield();
      }
      return;
    }
    std::mt19937 random(static_cast<unsigned>(index));
    for (int life = 0; life < 3; ++life) {
      Pool pool;
      std::vector<Region> held;
      for (int i = 0; i < rounds; ++i) {
        if (held.size() < 40 && random() % 2 == 0) {
          Failure failure{};
          const Region region = pool.acquire(failure);
          if (!region) {
            ++errors;
            continue;
          }
          region.boundary[-1] = static_cast<std::byte>(index + 1);
          held.push_back(region);
        } else if (!held.empty()) {
          std::swap(held[random() % held.size()], held.back());
          errors += held.back().boundary[-1] != static_cast<std::byte>(index + 1);
          pool.release(held.back());
          held.pop_back();
        }
      }
      for (const Region& region : held) {
        errors += region.boundary[-1] != static_cast<std::byte>(index + 1);
        pool.release(region);
      }
    }
    --running;
  });
  EXPECT_EQ(errors, 0);
  EXPECT_EQ(statistics().in_use, 0U);
}

}  // namespace
}  // namespace greenlet::stack
