// Floating-point control words belong to a context, as they belong to a thread.
#include <fenv.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "architecture.h"
#include "fiber.h"

namespace greenlet::context {
namespace {

using tests::Fiber;

// The sum cannot be represented: it shows the rounding mode that arithmetic really uses.
double rounded_sum() {
  volatile double one = 1.0;
  volatile double tiny = 1e-300;
  return one + tiny;
}

class RoundingMode : public ::testing::Test {
 protected:
  void TearDown() override { fesetround(FE_TONEAREST); }
};

TEST_F(RoundingMode, IsKeptOnBothSidesOfASwitch) {
  Fiber fiber([](Fiber& self, void*) {
    fesetround(FE_UPWARD);
    for (int i = 0; i < 100; ++i) {
      EXPECT_GT(rounded_sum(), 1.0);
      self.suspend();
      EXPECT_EQ(fegetround(), FE_UPWARD);
    }
    return nullptr;
  });
  fesetround(FE_DOWNWARD);
  while (!fiber.done()) {
    fiber.resume();
    EXPECT_EQ(fegetround(), FE_DOWNWARD);
    EXPECT_EQ(rounded_sum(), 1.0);
  }
}

TEST_F(RoundingMode, OfANewContextIsItsCreators) {
  fesetround(FE_UPWARD);
  Fiber fiber([](Fiber&, void*) {
    EXPECT_EQ(fegetround(), FE_UPWARD);
    EXPECT_GT(rounded_sum(), 1.0);
    return nullptr;
  });
  fesetround(FE_TONEAREST);
  fiber.resume();
  EXPECT_EQ(fegetround(), FE_TONEAREST);
}

// Each word alone, so that a difference in one of several is enough.
TEST(ControlWords, AreKeptAlone) {
  for (const tests::ControlWord& each : tests::kControlWords) {
    SCOPED_TRACE(each.name);
    const std::uint64_t before = each.read();
    const std::uint64_t changed = before ^ each.changed;
    Fiber fiber([&](Fiber& self, void*) {
      each.write(changed);
      self.suspend();
      EXPECT_EQ(each.read() & each.kept, changed & each.kept);
      return nullptr;
    });
    fiber.resume();
    EXPECT_EQ(each.read() & each.kept, before & each.kept);
    fiber.resume();
    EXPECT_EQ(each.read() & each.kept, before & each.kept);
  }
}

}  // namespace
}  // namespace greenlet::context
