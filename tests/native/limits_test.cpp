// Where regions run short: smaller ones first, then a failure that names the limit, and in the end
// a program that goes on.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "child.h"
#include "memory.h"
#include "platform/testing.h"
#include "stack/stack.h"
#include "stack/testing.h"

namespace greenlet::stack {
namespace {

using tests::exited;
using tests::in_child;
using tests::Regions;

constexpr std::size_t kMegabyte = std::size_t{1} << 20;

std::size_t virtual_bytes() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * tests::page_size();
}

// Leaves the process `bytes` of address space, or of writable private memory. False where that has
// no effect: under an emulator, or with a sanitizer, whose shadow takes more than any limit.
bool set_limit(decltype(RLIMIT_AS) resource, std::size_t total) {
  const rlimit limit{total, total};
  if (tests::kSanitizer || setrlimit(resource, &limit) != 0) {
    return false;
  }
  void* probe =
      mmap(nullptr, 2 * total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (probe != MAP_FAILED) {
    munmap(probe, 2 * total);
    return false;
  }
  return true;
}

bool limit_address_space(std::size_t bytes) {
  return set_limit(RLIMIT_AS, virtual_bytes() + bytes);
}

// Unmaps what earlier tests left in the reserve: asks for regions of a new size, in vain.
void empty_the_reserve() {
  static std::size_t calls = 0;
  set_default_size((platform::kShortOfAddresses ? 1 : 9) * kMegabyte +
                   ++calls * tests::page_size());
  platform::for_tests::switches.largest_mapping = 1;
  Pool pool;
  Failure failure{};
  if (pool.acquire(failure)) {
    std::abort();
  }
  platform::for_tests::switches.largest_mapping = 0;
}

constexpr int kNoLimit = 77;

#define SKIP_IF_NO_LIMIT(ending)                                                    \
  if ((ending) == exited(kNoLimit)) {                                               \
    GTEST_SKIP() << "RLIMIT_AS cannot be lowered under an emulator or a sanitizer"; \
  }

// Takes regions until none are left: the first ones have large stacks, the last ones the smallest.
int run_short(Failure expected) {
  Pool pool;
  Regions regions(pool);
  if (regions.acquire(100'000)) {
    return 1;
  }
  if (regions.failure() != expected) {
    return 2;
  }
  if (regions.all().size() < 1000) {
    return 3;
  }
  std::size_t size = regions.all()[0].bytes();
  if (regions.all()[0].stack_bytes() < default_size()) {
    return 4;
  }
  for (const Region& region : regions.all()) {
    if (region.bytes() > size || region.stack_bytes() < kMinSize) {
      return 5;
    }
    size = region.bytes();
    tests::touch(region.low, region.low + 1);
    tests::touch_stack(region, 1);
  }
  if (size >= 2 * kMinSize) {
    return 6;
  }
  void* others = std::malloc(16 * kMegabyte);
  if (others == nullptr) {
    return 7;
  }
  std::free(others);
  // What was given back can be had again, and serves as before.
  const std::size_t count = regions.all().size();
  regions.release();
  return regions.acquire(count) ? 0 : 8;
}

TEST(AddressSpace, RunsShortBySmallerRegionsFirstAndLeavesSomeToTheProgram) {
  const auto ending = in_child([] {
    empty_the_reserve();
    return limit_address_space(400 * kMegabyte) ? run_short(Failure::kAddressSpaceLimit) : kNoLimit;
  });
  SKIP_IF_NO_LIMIT(ending);
  EXPECT_EQ(ending, exited(0));
}

TEST(DataLimit, RunsShortBySmallerRegionsFirstAndLeavesSomeToTheProgram) {
  const auto ending = in_child([] {
    empty_the_reserve();
    return set_limit(RLIMIT_DATA, 400 * kMegabyte) ? run_short(Failure::kData) : kNoLimit;
  });
  SKIP_IF_NO_LIMIT(ending);
  EXPECT_EQ(ending, exited(0));
}

// The same paths without a limit of the kernel, so that these tests run everywhere.
class LimitedRoom : public ::testing::Test {
 protected:
  void SetUp() override { empty_the_reserve(); }
  void TearDown() override {
    for_tests::switches.room = 0;
    platform::for_tests::switches.address_space = 0;
  }
  tests::SettingsGuard restore_;
};

TEST_F(LimitedRoom, OfFourHundredMegabytesSufficesForAThousand) {
  for_tests::switches.room = 400 * kMegabyte;
  EXPECT_EQ(run_short(Failure::kAddressSpaceLimit), 0);
}

// With 32 bits a process has no more than 4 GiB.
#if UINTPTR_MAX > UINT32_MAX

TEST_F(LimitedRoom, OfTwelveGigabytesSufficesForTenThousand) {
  for_tests::switches.room = 12'000 * kMegabyte;
  Pool pool;
  Regions regions(pool);
  EXPECT_TRUE(regions.acquire(10'000));
  EXPECT_GE(regions.all()[100].stack_bytes(), default_size());
}

TEST_F(LimitedRoom, OfATerabyteIsPlenty) {
  for_tests::switches.room = std::size_t{1} << 40;
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(10'000));
  EXPECT_GE(regions.all().back().stack_bytes(), default_size());
}

// With 1 TiB of addresses in place of 128 TiB, and a hundredth of the regions that fill them.
TEST_F(LimitedRoom, OfAllAddressesIsLeftToTheRestOfTheProgram) {
  constexpr std::size_t kAll = std::size_t{1} << 40;
  const std::size_t before = virtual_bytes();
  platform::for_tests::switches.address_space = kAll;
  ASSERT_TRUE(set_default_size(kMaxSize));
  Pool pool;
  Regions regions(pool);
  EXPECT_TRUE(regions.acquire(3000));
  EXPECT_GE(regions.all()[100].stack_bytes(), kMaxSize);
  EXPECT_LT(virtual_bytes() - before, kAll / 2 + (kAll >> 10));
}

#else

TEST_F(LimitedRoom, OfAllAddressesSufficesForFourThousandAndLeavesSomeToTheProgram) {
  Pool pool;
  Regions regions(pool);
  EXPECT_TRUE(regions.acquire(4000));
  EXPECT_GE(regions.all()[500].stack_bytes(), default_size());
  EXPECT_GE(regions.all().back().stack_bytes(), kMinSize);
  tests::in_threads(4, [](int) {});
  void* const others = std::malloc(200 * kMegabyte);
  EXPECT_NE(others, nullptr);
  std::free(others);
}

#endif

TEST_F(LimitedRoom, OfNothingFailsAndNamesTheLimit) {
  for_tests::switches.room = 1;
  Pool pool;
  Regions regions(pool);
  EXPECT_FALSE(regions.acquire(1));
  EXPECT_EQ(regions.failure(), Failure::kAddressSpaceLimit);
  for_tests::switches.room = 0;
  EXPECT_TRUE(regions.acquire(1)) << "the pool is unusable after a failure";
}

TEST_F(LimitedRoom, IsNotTakenByRegionsOfAnotherSizeThatNobodyUses) {
  for_tests::switches.room = 400 * kMegabyte;
  set_pool_bound(0);
  Pool pool;
  for (const std::size_t size : {kMinSize, 300 * kMegabyte, kMinSize, 4 * kMegabyte}) {
    set_default_size(size);
    Regions regions(pool);
    EXPECT_TRUE(regions.acquire(size == kMinSize ? 1000 : 1)) << size;
    if (size == 300 * kMegabyte) {
      EXPECT_LT(regions.all()[0].stack_bytes(), 20 * kMegabyte) << "a first one takes no more";
    }
  }
}

TEST_F(LimitedRoom, ComesBackWhenLimitsDo) {
  for_tests::switches.room = 400 * kMegabyte;
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(1000));
  for_tests::switches.room = 0;
  ASSERT_TRUE(regions.acquire(100));
  EXPECT_GE(regions.all().back().stack_bytes(), default_size());
}

// The same paths without a limit of the kernel, so that these tests run everywhere.
class LargestMapping : public ::testing::Test {
 protected:
  void TearDown() override { platform::for_tests::switches.largest_mapping = 0; }
  tests::SettingsGuard restore_;
};

TEST_F(LargestMapping, OfTwelveMegabytesGivesFullRegionsOneByOne) {
  empty_the_reserve();
  platform::for_tests::switches.largest_mapping = 12 * kMegabyte;
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(3));
  EXPECT_GE(regions.all()[2].stack_bytes(), default_size());
}

TEST_F(LargestMapping, OfOneBatchGivesManyRegionsBatchByBatch) {
  empty_the_reserve();
  platform::for_tests::switches.largest_mapping = std::size_t{1} << 30;
  Pool pool;
  Regions regions(pool);
  // Ten batches are as many as fit into 32 bits with full regions.
  const std::size_t batches = platform::kShortOfAddresses ? 10 : 40;
  ASSERT_TRUE(regions.acquire(batches * for_tests::regions_per_batch()));
  EXPECT_GE(regions.all().back().stack_bytes(), default_size());
  EXPECT_LT(statistics().reserved, (batches + 2) * for_tests::regions_per_batch());
}

TEST_F(LargestMapping, OfThreeMegabytesGivesSmallerRegions) {
  empty_the_reserve();
  platform::for_tests::switches.largest_mapping = 3 * kMegabyte;
  set_default_size(8 * kMegabyte);
  Pool pool;
  Regions regions(pool);
  ASSERT_TRUE(regions.acquire(3));
  EXPECT_LT(regions.all()[0].stack_bytes(), 3 * kMegabyte);
  EXPECT_GE(regions.all()[0].stack_bytes(), 2 * kMegabyte);
  const std::byte* low = regions.all()[2].low;
  regions.release();
  ASSERT_TRUE(regions.acquire(1));
  EXPECT_EQ(regions.all()[0].low, low) << "a smaller region is pooled like any other";
}

TEST_F(LargestMapping, OfNothingFailsAndNamesTheLimits) {
  empty_the_reserve();
  platform::for_tests::switches.largest_mapping = kMinSize / 2;
  Pool pool;
  Regions regions(pool);
  EXPECT_FALSE(regions.acquire(1));
  EXPECT_EQ(regions.failure(), Failure::kUnexplained);
  const std::string text = describe(regions.failure());
  EXPECT_NE(text.find("RLIMIT_AS"), std::string::npos);
  EXPECT_NE(text.find("ulimit -v"), std::string::npos);
  EXPECT_NE(text.find("vm.overcommit_memory"), std::string::npos);
  platform::for_tests::switches.largest_mapping = 0;
  EXPECT_TRUE(regions.acquire(1)) << "the pool is unusable after a failure";
}

// A file of the system as this process alone reads it, after in_own_mounts().
class FileOfSystem {
 public:
  explicit FileOfSystem(const char* path) {
    char name[] = "/tmp/greenlet-file-XXXXXX";
    file_ = mkstemp(name);
    replaced_ = file_ >= 0 && mount(name, path, nullptr, MS_BIND, nullptr) == 0;
    unlink(name);
  }
  FileOfSystem(const FileOfSystem&) = delete;
  FileOfSystem& operator=(const FileOfSystem&) = delete;
  ~FileOfSystem() { close(file_); }
  // Not by the path: the machine's own settings could be behind it.
  bool write(const std::string& text) const {
    return replaced_ && ftruncate(file_, 0) == 0 &&
           pwrite(file_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  }

 private:
  int file_;
  bool replaced_;
};

bool in_own_mounts() {
  return (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
         mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

std::string committed(std::size_t megabytes, std::size_t of) {
  const auto kilobytes = [](std::size_t count) { return std::to_string(count << 10) + " kB\n"; };
  return "MemTotal:       16384000 kB\nCommitLimit:    " + kilobytes(of) +
         "Committed_AS:   " + kilobytes(megabytes);
}

TEST(Commitment, OfAMachineThatDoesNotOvercommitIsNotUsedUp) {
  const auto ending = in_child([] {
    empty_the_reserve();
    if (!in_own_mounts()) {
      return kNoLimit;
    }
    const FileOfSystem mode("/proc/sys/vm/overcommit_memory");
    const FileOfSystem memory("/proc/meminfo");
    if (!mode.write("2\n") || !memory.write(committed(4096, 4096))) {
      return kNoLimit;
    }
    Pool pool;
    Regions regions(pool);
    // The machine's settings are read when a mapping fails, and now and then.
    platform::for_tests::switches.largest_mapping = 1;
    if (regions.acquire(1) || regions.failure() != Failure::kCommit) {
      return 1;
    }
    const std::string text = describe(regions.failure());
    if (text.find("CommitLimit") == std::string::npos ||
        text.find("vm.overcommit_ratio") == std::string::npos) {
      return 2;
    }
    platform::for_tests::switches.largest_mapping = 0;
    if (regions.acquire(1) || regions.failure() != Failure::kCommit) {
      return 3;
    }
    // A sixteenth of 4 GiB is left to others, and 8 MiB to the administrator.
    if (!memory.write(committed(4096 - 256 - 8, 4096)) || regions.acquire(1)) {
      return 4;
    }
    if (!memory.write(committed(2048, 4096)) || !regions.acquire(1)) {
      return 5;
    }
    if (!memory.write(committed(4096, 4096)) || regions.acquire(10'000)) {
      return 6;
    }
    const std::size_t before = regions.all().size();
    if (!mode.write("0\n") || !regions.acquire(1000) || regions.all().size() != before + 1000) {
      return 7;
    }
    return regions.all().back().stack_bytes() >= default_size() ? 0 : 8;
  });
  if (ending == exited(kNoLimit)) {
    GTEST_SKIP() << "the system does not let this process replace its files for itself";
  }
  EXPECT_EQ(ending, exited(0));
}

class Mappings : public ::testing::Test {
 protected:
  void SetUp() override { platform::for_tests::switches.no_guards_by_advice = true; }
  void TearDown() override {
    platform::for_tests::switches.no_guards_by_advice = false;
    platform::for_tests::switches.mapping_limit = 0;
  }
};

TEST_F(Mappings, RunOutWithAFailureThatNamesTheSysctl) {
  EXPECT_EQ(in_child([] {
              empty_the_reserve();
              platform::for_tests::switches.mapping_limit = 100;
              Pool pool;
              Regions regions(pool);
              if (regions.acquire(51) || regions.all().size() != 50) {
                return 1;
              }
              if (regions.failure() != Failure::kMappings) {
                return 2;
              }
              const std::string text = describe(regions.failure());
              if (text.find("vm.max_map_count") == std::string::npos) {
                return 3;
              }
              regions.release();
              return regions.acquire(50) ? 0 : 4;
            }),
            exited(0));
}

TEST_F(Mappings, RunOutAtTheKernelsLimitToo) {
  if (platform::kShortOfAddresses) {
    GTEST_SKIP() << "addresses run out before";
  }
  EXPECT_EQ(in_child([] {
              empty_the_reserve();
              Pool pool;
              Regions regions(pool);
              if (regions.acquire(tests::max_mappings() / 2)) {
                return 1;
              }
              if (regions.failure() != Failure::kMappings) {
                return 2;
              }
              if (regions.all().size() < tests::max_mappings() / 2 * 8 / 10) {
                return 3;
              }
              // The program can still map: neighbours with different rights do not merge.
              for (int i = 0; i < 1000; ++i) {
                void* page = mmap(nullptr, tests::page_size(), i % 2 == 0 ? PROT_READ : PROT_EXEC,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (page == MAP_FAILED) {
                  return 4;
                }
              }
              regions.release();
              return regions.acquire(100) ? 0 : 5;
            }),
            exited(0));
}

TEST_F(Mappings, AreGivenBackWithTheRegions) {
  EXPECT_EQ(in_child([] {
              empty_the_reserve();
              const tests::SettingsGuard restore;
              set_pool_bound(0);
              Pool pool;
              Regions regions(pool);
              const std::size_t before = tests::mappings();
              for (int i = 0; i < 3; ++i) {
                if (!regions.acquire(tests::as_far_as_addresses_go(5000))) {
                  return 1;
                }
                regions.release();
              }
              return tests::mappings() < before + 2000 ? 0 : 2;
            }),
            exited(0));
}

}  // namespace
}  // namespace greenlet::stack
