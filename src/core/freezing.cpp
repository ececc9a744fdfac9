// Which greenlets may be frozen, and how their stacks move.
#include "core/freezing.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "context/context.h"
#include "core/thread_registry.h"
#include "cpython/gc_protocol.h"
#include "cpython/locks.h"
#include "platform/code.h"
#include "stack/reserve.h"

namespace greenlet::core {
namespace {

using platform::ForeignCode;
using platform::KnownCode;

// Larger stacks are not frozen: that saves little of their memory, and thawing takes longer.
constexpr std::size_t kMostBytes = std::size_t{8} << 10;
constexpr std::size_t kMostBytesInTests = std::size_t{1} << 20;
// Bytes behind the frozen ones. So no other memory begins where a frozen stack ends, and a pointer
// to the end is one to the stack.
constexpr std::size_t kBehind = 8;
constexpr int kPattern = 0xdb;
// Modules whose sources were searched for addresses of local variables that others use: there are
// none. Two of CPython's, and gevent's (26.9.0, with libev 4.33). Not libuv: its queues have their
// heads on the stack.
constexpr const char* kHarmless[] = {
    "/lib-dynload/_socket.",
    "/lib-dynload/select.",
    "/gevent/_gevent_c",
    "/gevent/libev/corecext.",
};

Freezer::TestMode read_test_mode() noexcept {
  const char* const text = std::getenv("GREENLET_TEST_FREEZING");
  return text == nullptr                  ? Freezer::TestMode::kOff
         : std::strcmp(text, "1") == 0    ? Freezer::TestMode::kOverwrites
         : std::strcmp(text, "drop") == 0 ? Freezer::TestMode::kDrops
                                          : Freezer::TestMode::kOff;
}

// Whether libraries of others are linked into the interpreter's own file, as in the interpreters of
// uv. Then nobody can tell their code from the interpreter's.
bool has_libraries_inside() noexcept {
  constexpr std::string_view kModules[] = {"_ctypes", "_sqlite3", "_ssl", "_tkinter"};
  for (const struct _inittab* each = PyImport_Inittab; each->name != nullptr; ++each) {
    if (std::ranges::find(kModules, std::string_view(each->name)) != std::end(kModules)) {
      return true;
    }
  }
  return false;
}

// The interpreter's code, in its program or its shared library, and ours.
std::array<KnownCode, 2> known_code() noexcept {
  enum Inside : std::uint8_t { kUnknown, kNo, kYes };
  static constinit std::atomic<Inside> inside{kUnknown};
  if (inside.load(std::memory_order_relaxed) == kUnknown) {
    inside.store(has_libraries_inside() ? kYes : kNo, std::memory_order_relaxed);
  }
  const bool is_alone = inside.load(std::memory_order_relaxed) == kNo;
  return {{
      {.address = is_alone ? reinterpret_cast<const void*>(PyType_Type.tp_call) : nullptr,
       .name = "python"},
      {.address = reinterpret_cast<const void*>(&Freezer::thaw), .name = "_greenlet"},
  }};
}

}  // namespace

Freezer::TestMode Freezer::test_mode() noexcept {
  // Not a local variable with an initial value that is computed: that takes functions of libstdc++.
  constexpr int kUnknown = -1;
  static constinit std::atomic<int> mode{kUnknown};
  int now = mode.load(std::memory_order_relaxed);
  if (now == kUnknown) {
    now = static_cast<int>(read_test_mode());
    mode.store(now, std::memory_order_relaxed);
  }
  return static_cast<TestMode>(now);
}

// C code that is not known may have given out addresses of its variables, and others may use them
// while the stack is elsewhere. (CPython and we have been read for that.)
bool Freezer::has_known_code_only(const Greenlet& greenlet, When when) noexcept {
  // No byte: on riscv64, gcc 11 and 12 would call libatomic.
  static constinit std::atomic<unsigned> allows_harmless{0};
  if (allows_harmless.exchange(1, std::memory_order_relaxed) == 0) {
    for (const char* const part : kHarmless) {
      ForeignCode::allow(part);
    }
  }
  return ForeignCode::is_absent(greenlet.context_.stack_pointer(), greenlet.region_.boundary,
                                known_code(),
                                when == When::kNow ? ForeignCode::kNew : ForeignCode::kRecent);
}

bool Freezer::may_freeze(const Greenlet& greenlet) noexcept {
  const std::byte* const begin = greenlet.context_.stack_pointer();
  const stack::Region& region = greenlet.region_;
  // A main greenlet has no region. And code of a greenlet may have switched away from a stack that
  // it has made itself.
  return begin > region.low && begin < region.boundary &&
         // Other greenlets link the WaitingKills on its stack to theirs.
         greenlet.waiting_kills_ == 0 && (greenlet.remaining_ & Greenlet::kKeepsFrozen) == 0 &&
         greenlet.stack_state_.may_be_relocated(region.boundary);
}

Freezer::Result Freezer::freeze(Greenlet& greenlet) noexcept {
  if (!context::kMayMove || greenlet.state() != State::kSuspended || greenlet.is_frozen()) {
    return Result::kRefused;
  }
  // A collector keeps its lists of objects on its stack.
  if (cpython::is_collecting()) {
    return Result::kNotNow;
  }
  const bool empties = test_mode() != TestMode::kOverwrites;
  if (!may_freeze(greenlet) || (empties && !stack::reserve().can_empty(greenlet.region_))) {
    return Result::kRefused;
  }
  std::byte* const begin = greenlet.context_.stack_pointer();
  const auto bytes =
      static_cast<std::size_t>(greenlet.stack_state_.data_end(greenlet.region_.boundary) - begin);
  if (bytes > (test_mode() == TestMode::kOff ? kMostBytes : kMostBytesInTests) ||
      // After the first look the list of code is new.
      !has_known_code_only(greenlet, std::exchange(when_, When::kIdle))) {
    // The system may not list the code at this moment: that takes a file descriptor.
    return ForeignCode::can_tell(known_code()) ? Result::kRefused : Result::kNotNow;
  }
  void* const memory = PyMem_RawMalloc(sizeof(FrozenStack) + bytes + kBehind);
  if (memory == nullptr) {
    return Result::kNotNow;
  }
  auto* const frozen = static_cast<FrozenStack*>(memory);
  frozen->bytes = bytes;
  std::memcpy(frozen->begin(), begin, bytes);
  greenlet.stack_state_.relocate(
      {.begin = begin, .end = begin + bytes, .delta = frozen->begin() - begin});
  greenlet.frozen_ = frozen;
  greenlet.set_mark(Greenlet::kFrozen);
  has_frozen_ = true;
  freezing.frozen.fetch_add(1, std::memory_order_relaxed);
  if (test_mode() != TestMode::kOff) {
    std::memset(begin, kPattern, bytes);
  }
  if (empties) {
    regions_[count_++] = greenlet.region_;
    if (count_ == kMost) {
      flush();
    }
  }
  return Result::kFrozen;
}

void Freezer::flush() noexcept {
  if (count_ != 0) {
    stack::reserve().empty(regions_, std::exchange(count_, 0));
  }
}

bool Freezer::thaw(Greenlet& greenlet) noexcept {
  if (test_mode() != TestMode::kOverwrites) {
    const stack::Failure failure = stack::reserve().refill(greenlet.region_);
    if (failure != stack::Failure::kNone) {
      PyErr_SetString(PyExc_MemoryError, stack::describe(failure));
      return false;
    }
  }
  FrozenStack& frozen = *greenlet.frozen_;
  std::byte* const begin = greenlet.context_.stack_pointer();
  // Another thread may have found a frame object of the frozen stack. It may read it at this
  // moment, or write through `f_locals`: so it has to stop. (Before anything moves: this waits.)
  const bool is_seen = greenlet.stack_state_.is_seen_by_others();
  std::optional<cpython::StoppedWorld> stopped;
  if (is_seen) {
    stopped.emplace();
  }
  std::memcpy(begin, frozen.begin(), frozen.bytes);
  greenlet.stack_state_.relocate({.begin = frozen.begin(),
                                  .end = frozen.begin() + frozen.bytes,
                                  .delta = begin - frozen.begin()});
  greenlet.state_.store(State::kSuspended, std::memory_order_release);
  freezing.frozen.fetch_sub(1, std::memory_order_relaxed);
  if (is_seen) {
    greenlet.remaining_ |= Greenlet::kKeepsFrozen;
  } else {
    release(greenlet);
  }
  return true;
}

void Freezer::release(Greenlet& greenlet) noexcept {
  PyMem_RawFree(std::exchange(greenlet.frozen_, nullptr));
  greenlet.remaining_ &= static_cast<std::uint8_t>(~Greenlet::kKeepsFrozen);
}

bool is_freezing_on() noexcept {
  return context::kMayMove && freezing.is_on.load(std::memory_order_relaxed) &&
         stack::reserve().can_empty() && ForeignCode::can_tell(known_code());
}

bool allow_freezing(const char* module) noexcept {
  const std::size_t length = std::strlen(module);
  char* const part = static_cast<char*>(PyMem_RawMalloc(length + 3));
  if (part == nullptr) {
    return false;
  }
  part[0] = '/';
  for (std::size_t i = 0; i < length; ++i) {
    part[i + 1] = module[i] == '.' ? '/' : module[i];
  }
  part[length + 1] = '.';
  part[length + 2] = '\0';
  const bool done = ForeignCode::allow(part);
  PyMem_RawFree(part);
  freezing.allowances.fetch_add(done ? 1 : 0, std::memory_order_relaxed);
  return done;
}

std::size_t freeze_now() noexcept {
  Thread* const thread = ThreadRegistry::current_or_null();
  return thread != nullptr ? thread->freeze() : 0;
}

}  // namespace greenlet::core
