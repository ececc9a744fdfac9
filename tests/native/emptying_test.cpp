// Regions that give back all their memory, page tables included, and are taken again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "child.h"
#include "memory.h"
#include "platform/memory.h"
#include "platform/testing.h"
#include "stack/reserve.h"
#include "stack/testing.h"

namespace greenlet::stack {
namespace {

using tests::exited;
using tests::in_child;
using tests::killed;
using tests::Regions;

std::size_t page_table_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmPTE:") {
      std::size_t kib = 0;
      status >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

void empty(const std::vector<Region>& regions) {
  for (std::size_t i = 0; i < regions.size(); i += platform::kMostAtOnce) {
    reserve().empty(&regions[i], std::min(platform::kMostAtOnce, regions.size() - i));
  }
}

void refill(const std::vector<Region>& regions) {
  for (const Region& region : regions) {
    EXPECT_EQ(reserve().refill(region), Failure::kNone);
  }
}

// Every other one, beginning with number `first`.
std::vector<Region> every_other(const std::vector<Region>& regions, std::size_t first) {
  std::vector<Region> found;
  for (std::size_t i = first; i < regions.size(); i += 2) {
    found.push_back(regions[i]);
  }
  return found;
}

std::byte& first_byte(const Region& region) { return *(region.boundary - 1); }
std::byte& last_byte(const Region& region) { return *region.low; }

tests::Ending ending_of_read(const std::byte* address) {
  return in_child([address] {
    (void)*const_cast<const volatile std::byte*>(address);
    return 0;
  });
}

// The parameter is the size of the stacks; zero: the default. Smaller ones share page tables.
class Emptying : public ::testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    if (GetParam() != 0) {
      ASSERT_TRUE(set_default_size(GetParam()));
    }
    if (!reserve().can_empty()) {
      GTEST_SKIP() << "this kernel keeps page tables: it is older than 6.14, or emulated";
    }
    ASSERT_TRUE(regions_.acquire(3 * for_tests::regions_per_batch()));
    for (const Region& region : regions_.all()) {
      if (!reserve().can_empty(region)) {
        GTEST_SKIP() << "its guards cost mappings here, or addresses are short";
      }
    }
  }
  const std::vector<Region>& all() const { return regions_.all(); }

 private:
  tests::SettingsGuard restore_;
  Pool pool_;
  Regions regions_{pool_};
};

TEST_P(Emptying, GivesBackPagesAndPageTables) {
  for (const Region& region : all()) {
    tests::touch_stack(region, 1);
  }
  const std::size_t before = page_table_bytes();
  empty(all());
  for (const Region& region : all()) {
    EXPECT_EQ(tests::resident_bytes(region), 0U);
  }
  // A sanitizer's own memory has page tables that come and go.
  if (!tests::kSanitizer && GetParam() == 0) {
    EXPECT_GT(before - page_table_bytes(), all().size() * tests::page_size() / 2);
  }
  refill(all());
}

TEST_P(Emptying, LeavesWhatNeighboursHold) {
  for (const std::size_t emptied : {0U, 1U}) {
    const std::vector<Region> kept = every_other(all(), 1 - emptied);
    const std::vector<Region> gone = every_other(all(), emptied);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      first_byte(kept[i]) = last_byte(kept[i]) = std::byte(i + 1);
    }
    empty(gone);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      EXPECT_EQ(first_byte(kept[i]), std::byte(i + 1));
      EXPECT_EQ(last_byte(kept[i]), std::byte(i + 1));
      EXPECT_EQ(ending_of_read(kept[i].low - 1), killed(SIGSEGV));
    }
    refill(gone);
  }
}

TEST_P(Emptying, EndsWithAGuardAgain) {
  empty(all());
  refill(every_other(all(), 0));
  refill(every_other(all(), 1));
  for (const Region& region : all()) {
    EXPECT_EQ(ending_of_read(region.low), exited(0));
    EXPECT_EQ(ending_of_read(region.low - 1), killed(SIGSEGV));
    EXPECT_EQ(ending_of_read(region.low - for_tests::guard_bytes()), killed(SIGSEGV));
  }
}

// mlockall() fills what is mapped with memory up to the first guard of each mapping.
TEST_P(Emptying, KeepsTheFirstGuardOfAMapping) {
  empty(all());
  for (const Region& region : all()) {
    const bool is_first = region.batch->index(region) == 0;
    EXPECT_EQ(ending_of_read(region.low - 1), is_first ? killed(SIGSEGV) : exited(0));
  }
  refill(all());
}

TEST_P(Emptying, ChangesNothingIfTheGuardIsRefused) {
  empty(all());
  for_tests::switches.fail_guards = true;
  for (const Region& region : all()) {
    const bool is_first = region.batch->index(region) == 0;
    EXPECT_EQ(reserve().refill(region), is_first ? Failure::kNone : Failure::kGuard);
  }
  for_tests::switches.fail_guards = false;
  // They still count as emptied: with a neighbour's memory, theirs goes back once more.
  for (const Region& region : every_other(all(), 1)) {
    tests::touch_stack(region, 1);
  }
  empty(every_other(all(), 0));
  for (const Region& region : every_other(all(), 1)) {
    if (region.batch->index(region) != 0) {
      EXPECT_EQ(tests::resident_bytes(region), 0U);
    }
  }
  refill(all());
}

TEST_P(Emptying, LeavesWhatOtherThreadsWriteToNeighbours) {
  tests::in_threads(4, [this](int thread) {
    for (int round = 0; round < 50; ++round) {
      for (auto i = static_cast<std::size_t>(thread); i < all().size(); i += 4) {
        const Region& region = all()[i];
        const auto value = static_cast<std::byte>(round + thread);
        tests::touch_stack(region, 1);
        first_byte(region) = last_byte(region) = value;
        if (i + 4 < all().size()) {
          reserve().empty(&all()[i + 4], 1);
          EXPECT_EQ(reserve().refill(all()[i + 4]), Failure::kNone);
        }
        EXPECT_EQ(first_byte(region), value);
        EXPECT_EQ(last_byte(region), value);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(OfSize, Emptying,
                         ::testing::Values(0U, std::size_t{256} << 10, std::size_t{1} << 20));

TEST(EmptyingRefused, WhereGuardsCostMappings) {
  const tests::SettingsGuard restore;
  set_default_size(default_size() + 32 * tests::page_size());  // nothing of it in reserve
  platform::for_tests::switches.no_guards_by_advice = true;
  Pool pool;
  Regions regions(pool);
  EXPECT_TRUE(regions.acquire(2));
  platform::for_tests::switches.no_guards_by_advice = false;
  EXPECT_FALSE(reserve().can_empty(regions.all()[0]));
}

}  // namespace
}  // namespace greenlet::stack
