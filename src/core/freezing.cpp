// Which greenlets may be frozen, and how their stacks move.
#include "core/freezing.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "context/context.h"
#include "cpython/gc_protocol.h"

namespace greenlet::core {
namespace {

// Larger stacks are not frozen: that saves little of their memory, and thawing takes longer.
constexpr std::size_t kMostBytes = std::size_t{8} << 10;
constexpr std::size_t kMostBytesInTests = std::size_t{1} << 20;
// Bytes behind the frozen ones. So no other memory begins where a frozen stack ends, and a pointer
// to the end is one to the stack.
constexpr std::size_t kBehind = 16;
constexpr int kPattern = 0xdb;

Freezer::TestMode read_test_mode() noexcept {
  const char* const text = std::getenv("GREENLET_TEST_FREEZING");
  return text != nullptr && std::strcmp(text, "1") == 0 ? Freezer::TestMode::kOverwrites
                                                        : Freezer::TestMode::kOff;
}

}  // namespace

Freezer::TestMode Freezer::test_mode() noexcept {
  static const TestMode mode = read_test_mode();
  return mode;
}

bool Freezer::may_freeze(const Greenlet& greenlet) noexcept {
  const std::byte* const begin = greenlet.context_.stack_pointer();
  const stack::Region& region = greenlet.region_;
  // A main greenlet has no region. And code of a greenlet may have switched away from a stack that
  // it has made itself.
  return context::kMayMove && greenlet.state() == State::kSuspended && !greenlet.is_frozen() &&
         begin > region.low && begin < region.boundary &&
         // Other greenlets link the WaitingKills on its stack to theirs.
         greenlet.waiting_kills_ == 0 && !greenlet.keeps_frozen_ &&
         // A collector keeps its lists of objects on its stack.
         !cpython::is_collecting() && greenlet.stack_state_.may_be_relocated(region.boundary);
}

bool Freezer::freeze(Greenlet& greenlet) noexcept {
  if (!may_freeze(greenlet)) {
    return false;
  }
  std::byte* const begin = greenlet.context_.stack_pointer();
  const auto bytes = static_cast<std::size_t>(
      greenlet.stack_state_.data_end(greenlet.region_.boundary) - begin);
  if (bytes > (test_mode() == TestMode::kOff ? kMostBytes : kMostBytesInTests)) {
    return false;
  }
  void* const memory = PyMem_RawMalloc(sizeof(FrozenStack) + bytes + kBehind);
  if (memory == nullptr) {
    return false;
  }
  auto* const frozen = static_cast<FrozenStack*>(memory);
  frozen->bytes = bytes;
  std::memcpy(frozen->begin(), begin, bytes);
  greenlet.stack_state_.relocate(
      {.begin = begin, .end = begin + bytes, .delta = frozen->begin() - begin});
  greenlet.frozen_ = frozen;
  greenlet.set_mark(Greenlet::kFrozen);
  if (test_mode() != TestMode::kOff) {
    std::memset(begin, kPattern, bytes);
  }
  return true;
}

void Freezer::thaw(Greenlet& greenlet) noexcept {
  FrozenStack& frozen = *greenlet.frozen_;
  std::byte* const begin = greenlet.context_.stack_pointer();
  // Another thread may have found a frame object of the frozen stack, and read it at this moment.
  greenlet.keeps_frozen_ = greenlet.stack_state_.is_seen_by_others();
  std::memcpy(begin, frozen.begin(), frozen.bytes);
  greenlet.stack_state_.relocate({.begin = frozen.begin(),
                                  .end = frozen.begin() + frozen.bytes,
                                  .delta = begin - frozen.begin()});
  greenlet.state_.store(State::kSuspended, std::memory_order_release);
  if (!greenlet.keeps_frozen_) {
    release(greenlet);
  }
}

void Freezer::release(Greenlet& greenlet) noexcept {
  PyMem_RawFree(std::exchange(greenlet.frozen_, nullptr));
  greenlet.keeps_frozen_ = false;
}

}  // namespace greenlet::core
