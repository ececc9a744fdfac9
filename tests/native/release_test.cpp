// Releasing a region that is not in use. Compiled with assertions, whatever the other tests are
// compiled with: a program of its own.
#include <gtest/gtest.h>

#include "stack/release_check.h"
#include "stack/stack.h"

namespace greenlet::stack {
namespace {

static_assert(kChecksReleases);
constexpr const char* kSentence = "greenlet: a stack region was released that is not in use";

TEST(Release, OfARegionInUseSucceedsAgainAndAgain) {
  Pool pool;
  Failure failure{};
  for (int i = 0; i < 100; ++i) {
    const Region region = pool.acquire(failure);
    const Region other = pool.acquire(std::size_t{1} << 20, failure);
    ASSERT_TRUE(region && other);
    pool.release(region);
    pool.release(other);
  }
}

TEST(Release, OfARegionThatAnotherPoolHandedOutSucceeds) {
  Pool from;
  Pool to;
  Failure failure{};
  to.release(from.acquire(failure));
}

TEST(ReleaseDeathTest, OfTheSameRegionTwiceEndsTheProcessWithASentence) {
  Pool pool;
  Failure failure{};
  const Region region = pool.acquire(failure);
  const Region other = pool.acquire(std::size_t{1} << 20, failure);
  const Region keeps_the_mapping = pool.acquire(std::size_t{1} << 20, failure);
  pool.release(region);
  EXPECT_DEATH(pool.release(region), kSentence);
  pool.release(other);
  EXPECT_DEATH(pool.release(other), kSentence);
  pool.release(keeps_the_mapping);
}

TEST(ReleaseDeathTest, OfARegionThatNobodyHasTakenEndsTheProcessWithASentence) {
  Pool pool;
  Failure failure{};
  const Region region = pool.acquire(failure);
  Region next = region;  // in the same mapping
  const std::ptrdiff_t bytes = 3 * (region.high - region.low);
  EXPECT_DEATH(pool.release(Region{}), kSentence);
  next.low += bytes;
  next.boundary += bytes;
  next.high += bytes;
  EXPECT_DEATH(pool.release(next), kSentence);
  pool.release(region);
}

}  // namespace
}  // namespace greenlet::stack
