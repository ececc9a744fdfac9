// Floating-point control words belong to a context, as they belong to a thread.
#include <fenv.h>
#include <gtest/gtest.h>

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

#if defined(__x86_64__)

std::uint16_t x87_control() {
  std::uint16_t word;
  asm volatile("fnstcw %0" : "=m"(word));
  return word;
}
void set_x87_control(std::uint16_t word) { asm volatile("fldcw %0" : : "m"(word)); }

constexpr unsigned kMxcsrFlags = 0x3f;

// Each of the two words alone, so that a difference in either is enough.
TEST(ControlWords, OfSseAreKeptAlone) {
  const unsigned before = _mm_getcsr();
  const unsigned flush_to_zero = before | 0x8040;
  Fiber fiber([=](Fiber& self, void*) {
    _mm_setcsr(flush_to_zero);
    self.suspend();
    EXPECT_EQ(_mm_getcsr() & ~kMxcsrFlags, flush_to_zero & ~kMxcsrFlags);
    return nullptr;
  });
  fiber.resume();
  EXPECT_EQ(_mm_getcsr() & ~kMxcsrFlags, before & ~kMxcsrFlags);
  fiber.resume();
  EXPECT_EQ(_mm_getcsr() & ~kMxcsrFlags, before & ~kMxcsrFlags);
}

TEST(ControlWords, OfX87AreKeptAlone) {
  const std::uint16_t before = x87_control();
  const auto single_precision = static_cast<std::uint16_t>(before & ~0x0300);
  ASSERT_NE(single_precision, before);
  Fiber fiber([=](Fiber& self, void*) {
    set_x87_control(single_precision);
    self.suspend();
    EXPECT_EQ(x87_control(), single_precision);
    return nullptr;
  });
  fiber.resume();
  EXPECT_EQ(x87_control(), before);
  fiber.resume();
  EXPECT_EQ(x87_control(), before);
}

#elif defined(__aarch64__)

std::uint64_t fpcr() {
  std::uint64_t word;
  asm volatile("mrs %0, fpcr" : "=r"(word));
  return word;
}
void set_fpcr(std::uint64_t word) { asm volatile("msr fpcr, %0" : : "r"(word)); }

TEST(ControlWords, OfFpcrAreKept) {
  const std::uint64_t before = fpcr();
  const std::uint64_t flush_to_zero = before | 1U << 24;
  Fiber fiber([=](Fiber& self, void*) {
    set_fpcr(flush_to_zero);
    self.suspend();
    EXPECT_EQ(fpcr(), flush_to_zero);
    return nullptr;
  });
  fiber.resume();
  EXPECT_EQ(fpcr(), before);
  fiber.resume();
  EXPECT_EQ(fpcr(), before);
}

#endif

}  // namespace
}  // namespace greenlet::context
