// What one region is: its layout, its guard, and that very many can exist at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "child.h"
#include "memory.h"
#include "platform/testing.h"
#include "stack/layout.h"
#include "stack/stack.h"
#include "stack/testing.h"

namespace greenlet::stack {
namespace {

using tests::exited;
using tests::in_child;
using tests::killed;
using tests::Regions;

// Whether guards cost no mappings here. They do if the kernel is older than 6.13 or emulated.
bool guards_by_advice() {
  Pool pool;
  Regions regions(pool);
  regions.acquire(1);
  const std::size_t before = tests::mappings();
  regions.acquire(100);
  return tests::mappings() < before + 20;
}

// Bytes whose pages have their entries in one page table.
std::size_t page_table_reach() { return tests::page_size() / sizeof(void*) * tests::page_size(); }

TEST(Region, HasTheDefaultSizeAndRoomForData) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  EXPECT_GE(region.stack_bytes(), default_size());
  const std::size_t least = for_tests::guard_bytes() + default_size() + (std::size_t{256} << 10);
  EXPECT_LT(region.stack_bytes(), default_size() + least / 4 + 2 * tests::page_size());
  EXPECT_GE(region.data_bytes(), std::min(std::size_t{240} << 10, default_size() / 8));
}

TEST(Region, IsWritableFromLowToHigh) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  tests::touch(region.low, region.high);
  EXPECT_EQ(tests::resident_bytes(region), static_cast<std::size_t>(region.high - region.low));
}

TEST(Region, PutsTheFirstFramesAndTheFirstDataIntoOnePage) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1));
  const Region region = regions.all()[0];
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.boundary) % 16, 0U);
  ASSERT_EQ(tests::resident_bytes(region), 0U);
  tests::touch_stack(region, kStackShareOfBoundaryPage);
  tests::touch(region.boundary, region.boundary + 1024);
  EXPECT_EQ(tests::resident_bytes(region), tests::page_size());
}

TEST(Region, HasItsBoundaryAtAnotherPlaceInItsPageThanItsNeighbours) {
  Pool pool;
  Regions regions(pool);
  constexpr std::size_t kCount = 4 * kBatchRegions;
  ASSERT_TRUE(regions.acquire(kCount));
  std::map<std::size_t, std::size_t> places;
  for (const Region& region : regions.all()) {
    const auto address = reinterpret_cast<std::uintptr_t>(region.boundary);
    ++places[address % tests::page_size() / kBoundaryStep];
    EXPECT_GE(region.stack_bytes(), default_size());
  }
  EXPECT_EQ(places.size(), kBoundaryPlaces);
  for (const auto& [place, count] : places) {
    EXPECT_LE(count, 2 * kCount / kBoundaryPlaces) << place;
  }
}

const volatile std::byte* volatile_low(const Region& region) { return region.low; }

enum class Means : unsigned char { kAdvice, kAdviceOneByOne, kMprotect };

// At both ends of the guard, in every region of a batch, by whatever means.
class Guard : public ::testing::TestWithParam<Means> {
 protected:
  void SetUp() override {
    platform::for_tests::switches.guard_one_by_one = GetParam() == Means::kAdviceOneByOne;
    platform::for_tests::switches.no_guards_by_advice = GetParam() == Means::kMprotect;
  }
  void TearDown() override {
    platform::for_tests::switches.guard_one_by_one = false;
    platform::for_tests::switches.no_guards_by_advice = false;
  }
};

TEST_P(Guard, FaultsBelowLow) {
  const auto read_at = [](std::ptrdiff_t offset) {
    return in_child([offset] {
      Pool pool;
      Regions regions(pool);
      if (!regions.acquire(1)) {
        return 2;
      }
      return static_cast<int>(*(volatile_low(regions.all()[0]) + offset));
    });
  };
  EXPECT_EQ(read_at(0), exited(0));
  EXPECT_EQ(read_at(-1), killed(SIGSEGV));
  EXPECT_EQ(read_at(-static_cast<std::ptrdiff_t>(for_tests::guard_bytes())), killed(SIGSEGV));
}

TEST_P(Guard, FaultsInEveryRegionOfABatch) {
  const auto ending = in_child([] {
    Pool pool;
    Regions regions(pool);
    if (!regions.acquire(3 * for_tests::regions_per_batch())) {
      return 2;
    }
    for (const Region& region : regions.all()) {
      const auto fault = in_child([&] { return static_cast<int>(*(volatile_low(region) - 1)); });
      if (fault != killed(SIGSEGV)) {
        return 1;
      }
    }
    return 0;
  });
  EXPECT_EQ(ending, exited(0));
}

TEST_P(Guard, OutlivesTheReuseOfTheRegion) {
  const auto ending = in_child([] {
    set_pool_bound(0);  // through the reserve, where pages are dropped
    Pool pool;
    Regions regions(pool);
    regions.acquire(1);
    Regions keep_the_batch(pool);
    keep_the_batch.acquire(1);
    const std::byte* low = regions.all()[0].low;
    tests::touch_stack(regions.all()[0], default_size());
    regions.release();
    regions.acquire(1);
    if (regions.all()[0].low != low) {
      return 2;
    }
    return static_cast<int>(*(volatile_low(regions.all()[0]) - 1));
  });
  EXPECT_EQ(ending, killed(SIGSEGV));
}

INSTANTIATE_TEST_SUITE_P(Means, Guard,
                         ::testing::Values(Means::kAdvice, Means::kAdviceOneByOne,
                                           Means::kMprotect),
                         [](const auto& means) {
                           switch (means.param) {
                             case Means::kAdvice:
                               return "ByAdviceWhereTheKernelHasIt";
                             case Means::kAdviceOneByOne:
                               return "ByAdviceOneByOne";
                             case Means::kMprotect:
                               break;
                           }
                           return "ByMprotect";
                         });

// The pages which every greenlet touches then spread over the sets of the TLB.
TEST(Region, IsAnOddNumberOfPagesFromTheNext) {
  const tests::SettingsGuard restore;
  for (const std::size_t size : {default_size(), default_size() + tests::page_size()}) {
    ASSERT_TRUE(set_default_size(size));
    Pool pool;
    Regions regions(pool);
    ASSERT_TRUE(regions.acquire(3));
    for (std::size_t i = 1; i < 3; ++i) {
      const auto distance = regions.all()[i].low - regions.all()[i - 1].low;
      EXPECT_EQ(distance / static_cast<std::ptrdiff_t>(tests::page_size()) % 2, 1);
    }
  }
}

TEST(Region, IsRefusedRatherThanHandedOutUnguarded) {
  const tests::SettingsGuard restore;
  set_default_size(default_size() + 16 * tests::page_size());  // nothing of it in reserve
  Pool pool;
  Regions regions(pool);
  const Statistics before = statistics();
  for_tests::switches.fail_guards = true;
  EXPECT_FALSE(regions.acquire(1));
  for_tests::switches.fail_guards = false;
  EXPECT_EQ(regions.failure(), Failure::kGuard);
  EXPECT_EQ(statistics().in_use, before.in_use);
  EXPECT_TRUE(regions.acquire(1)) << "the pool is unusable after a failure";
}

TEST(Region, HasItsBoundaryWhereThePageTableOfTheNextGuardReaches) {
  if (platform::kShortOfAddresses) {
    GTEST_SKIP() << "where addresses are short, regions take as few as they can";
  }
  const tests::SettingsGuard restore;
  // Stacks that are much smaller than the reach of a page table mostly share one in any case.
  ASSERT_TRUE(set_default_size(std::max(default_size(), page_table_reach() - (1U << 20))));
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(3 * for_tests::regions_per_batch()));
  std::vector<Region> sorted = regions.all();
  std::ranges::sort(sorted, {}, &Region::low);
  const auto table = [](const std::byte* address) {
    return reinterpret_cast<std::uintptr_t>(address) / page_table_reach();
  };
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1].batch == sorted[i].batch) {
      EXPECT_EQ(table(sorted[i - 1].boundary), table(sorted[i].low - for_tests::guard_bytes()));
      EXPECT_EQ(table(sorted[i - 1].boundary), table(sorted[i].low - 1));
    }
  }
}

TEST(Region, HasNoMoreMemoryThanThePageOfItsBoundaryAtFirst) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(for_tests::regions_per_batch()));
  for (const Region& region : regions.all()) {
    const std::size_t resident = tests::resident_bytes(region);
    if (resident != 0) {  // several were taken at once, and the kernel was asked for it
      EXPECT_EQ(resident, tests::page_size());
      tests::touch_stack(region, 1);
      EXPECT_EQ(tests::resident_bytes(region), tests::page_size());
    }
  }
}

TEST(Region, IsFoundByTheAddressesOnItsCStackAndNoOthers) {
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(3 * for_tests::regions_per_batch()));
  for (const Region& region : regions.all()) {
    for (const std::byte* inside : {region.low, region.low + 4096, region.boundary - 1}) {
      const Region found = region_at(inside);
      EXPECT_EQ(found.low, region.low);
      EXPECT_EQ(found.boundary, region.boundary);
      EXPECT_EQ(found.high, region.high);
    }
    EXPECT_FALSE(region_at(region.low - 1));  // the guard
    EXPECT_FALSE(region_at(region.boundary));
    EXPECT_FALSE(region_at(region.high - 1));
  }
  const int local = 0;
  EXPECT_FALSE(region_at(&local));
  EXPECT_FALSE(region_at(nullptr));
}

TEST(Region, ExistsAHundredThousandTimesAtOnce) {
  // By mprotect, mappings run out at about 30,000.
  const bool advice = guards_by_advice();
  const std::size_t count = tests::as_far_as_addresses_go(advice ? 100'000 : 20'000);
  Pool pool;
  Regions regions(pool);
  const std::size_t reserved = statistics().reserved;
  const std::size_t mappings = tests::mappings();
  ASSERT_TRUE(regions.acquire(count)) << describe(regions.failure());
  if (advice && !tests::kSanitizer) {
    EXPECT_LT(tests::mappings(), mappings + 1000);
  }
  std::vector<Region> sorted = regions.all();
  std::ranges::sort(sorted, {}, &Region::low);
  for (std::size_t i = 1; i < count; ++i) {
    ASSERT_LE(sorted[i - 1].high + for_tests::guard_bytes(), sorted[i].low);
  }
  for (std::size_t i = 0; i < count; i += 100) {
    tests::touch_stack(sorted[i], 1);
    ASSERT_EQ(tests::resident_bytes(sorted[i]), tests::page_size());
  }
  EXPECT_EQ(statistics().in_use, count);
  regions.release();
  EXPECT_LE(statistics().reserved, reserved + 2 * pool_bound() + 1000);
}

}  // namespace
}  // namespace greenlet::stack
