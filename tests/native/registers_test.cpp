// The assembly by itself: every callee-saved register survives a switch, on both sides.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>

#include "architecture.h"
#include "child.h"
#include "context/context.h"
#include "stack/stack.h"

namespace greenlet::context {

extern "C" void* greenlet_context_make(void* top, Entry entry) noexcept;
extern "C" void* switch_with_registers(void** from_sp, void* to_sp, void* message,
                                       const std::uintptr_t* in, std::uintptr_t* out);

namespace {

using tests::kRegisters;
using Registers = std::array<std::uintptr_t, kRegisters>;

Registers pattern(std::uint64_t seed) {
  Registers registers{};
  for (std::size_t i = 0; i < kRegisters; ++i) {
    registers[i] = static_cast<std::uintptr_t>((seed + i) * 0x9e3779b97f4a7c15U >> 8U | 1U);
  }
  return registers;
}

constexpr std::uint64_t kRounds = 1000;
void* outside_sp;
void* inside_sp;
int inside_errors;

void other_side(void* message) {
  for (std::uint64_t round = 0;; ++round) {
    const Registers in = pattern(1'000'000 + round);
    Registers out{};
    message = switch_with_registers(&inside_sp, outside_sp, message, in.data(), out.data());
    inside_errors += in != out;
  }
}

TEST(Registers, SurviveASwitchOnBothSides) {
  if (tests::kSanitizer) {
    GTEST_SKIP() << "calls the assembly directly, without the notes that sanitizers need";
  }
  stack::Pool pool;
  stack::Failure failure{};
  const stack::Region region = pool.acquire(failure);
  ASSERT_TRUE(region);
  inside_sp = greenlet_context_make(region.boundary, &other_side);
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const Registers in = pattern(round);
    Registers out{};
    ASSERT_EQ(switch_with_registers(&outside_sp, inside_sp, &outside_sp, in.data(), out.data()),
              &outside_sp);
    ASSERT_EQ(in, out) << "round " << round;
  }
  EXPECT_EQ(inside_errors, 0);
  pool.release(region);
}

}  // namespace
}  // namespace greenlet::context
