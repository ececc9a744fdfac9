// When the sweep works, for how long, and what it trims.
#include "core/sweep.h"

#include <algorithm>

#include "core/freezing.h"
#include "core/thread_registry.h"
#include "platform/clock.h"
#include "stack/trimmer.h"

namespace greenlet::core {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;

// The time from the beginning of a lap to the next one. If four laps have found a greenlet waiting
// since it ran last, the next lap trims it (Greenlet::laps_to_trim_). The number doubles each time,
// up to kMostLapsToTrim: touching the pages again costs more than giving them back, so a greenlet
// that is deep every few seconds shall keep them.
constexpr std::uint64_t kLap = 250 * kMillisecond;
constexpr unsigned kMostLapsToTrim = 16;
// Where many greenlets wait (FreezingSettings::bound), what is to be trimmed is frozen at once, as
// long as little is thawed. After a lap in which more than 1/kManyThaws of the greenlets have been
// thawed, laps_to_freeze_ doubles: a thaw takes as long as dozens of switches. Then greenlets are
// trimmed, and frozen when this many laps have found them trimmed. The number halves after
// kQuietLaps laps with fewer thaws.
constexpr std::uint8_t kMostLapsToFreeze = 128;
constexpr std::size_t kManyThaws = 64;
constexpr std::uint32_t kQuietLaps = 64;
// A lap of the pool lasts this many laps of the sweep.
constexpr unsigned kLapsOfPool = 4;

// The sweep takes at most these shares (1/n) of the time that the thread sleeps, of the time that
// it works, and of all time. With very many greenlets the last one makes laps longer. It does not
// count what freezes: that is done once for each time that a greenlet is idle, not in each lap.
constexpr std::uint64_t kShareOfSleep = 4;
constexpr std::uint64_t kShareOfWork = 32;
constexpr std::uint64_t kShareOfAll = 50;
// The longest time that it works at once, because others wait for the thread; and how many
// greenlets it visits between two looks at the clock.
constexpr std::int64_t kLongestStep = 5 * kMillisecond;
constexpr unsigned kVisitsAtOnce = 64;
// The sweep looks at the time about once in this interval, if there are events, and at the latest
// after this many events.
constexpr std::uint64_t kLookEvery = 10 * kMillisecond;
constexpr std::uint32_t kMostEvents = 16;
// How many switches in this interval may leave a mark. A switch to a marked greenlet takes some 20
// ns more, so this costs no more than a ten-thousandth of the time. Where the same greenlets switch
// to each other without a pause, the marks are used up at once: then the next event is another one,
// a start, a collection, or the switch to a greenlet that has waited since an earlier lap. Where
// each pauses for this long, some of them have their marks until after the pause.
constexpr std::uint32_t kMostMarks = 4;
constexpr std::uint64_t kMarksLast = kMillisecond;

// How far the lowest byte in use may lie below the stack pointer: the red zone. On x86-64 it has
// 128 bytes; this is enough for other architectures, too.
constexpr std::size_t kRedZone = 512;

using platform::Clock;

}  // namespace

void Sweep::on_look_due(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
  if (work_if_due(started, main, pool)) {
    state_when_left_ = Greenlet::marked(Greenlet::kOnlyMarked);
    look_interval_ = std::max(look_interval_ / 4, 1U);
  } else {
    look_interval_ = std::min(look_interval_ * 2, kMostEvents);
  }
  until_look_ = look_interval_;
}

void Sweep::note_marked(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
  work_if_due(started, main, pool);
  if (marks_left_ == 0) {
    const std::uint64_t now = platform::now(Clock::kMonotonic);
    if (now < next_marks_) {
      return;
    }
    next_marks_ = now + kMarksLast;
    marks_left_ = kMostMarks;
  }
  --marks_left_;
  state_when_left_ = Greenlet::marked(Greenlet::kOnlyMarked);
}

bool Sweep::work_if_due(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
  const std::uint64_t rough = platform::now(Clock::kCoarse);
  if (rough < next_look_) [[likely]] {
    return false;
  }
  next_look_ = rough + kLookEvery;
  if (next_ != nullptr || rough >= next_lap_) {
    step(started, main, pool);
  }
  return true;
}

void Sweep::step(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
  const std::uint64_t begin = platform::now(Clock::kMonotonic);
  if (next_ == nullptr) {
    begin_lap(started, main, pool);
    lap_began_ = begin;
    lap_work_ = 0;
  }
  // If the thread has moved to another OS thread, the new OS thread's CPU time may be less than the
  // old one's. Then all the time counts as work.
  const std::uint64_t worked = platform::now(Clock::kThreadCpu);
  const std::uint64_t elapsed = begin - accounted_;
  const std::uint64_t work = std::min(elapsed, worked - accounted_work_);
  accounted_ = begin;
  accounted_work_ = worked;
  credit_ += static_cast<std::int64_t>((elapsed - work) / kShareOfSleep + work / kShareOfWork);
  credit_ = std::min(credit_, kLongestStep);
  if (credit_ > 0) {
    const bool has_frozen = visit_some(begin + static_cast<std::uint64_t>(credit_));
    // CPU time: the time in which other threads had the processor does not count.
    accounted_work_ = platform::now(Clock::kThreadCpu);
    credit_ -= static_cast<std::int64_t>(accounted_work_ - worked);
    if (!has_frozen) {
      lap_work_ += accounted_work_ - worked;
    }
    next_lap_ = lap_began_ + std::max(lap_work_ * kShareOfAll, kLap);
  }
}

void Sweep::begin_lap(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
  if (laps_++ % kLapsOfPool == 0) {
    pool.decay();
  }
  next_ = started.first();
  adapt_freezing(started);
  // The main greenlet has no pages to give back. But with a mark its next switch is an event. In an
  // idle program it may be the only greenlet that goes on now and then.
  if (main.raw_state() == State::kSuspended) {
    main.set_mark(Greenlet::kOnlyMarked);
  }
}

void Sweep::adapt_freezing(const GreenletList& started) noexcept {
  freezes_ = started.size() > freezing.bound.load(std::memory_order_relaxed) && is_freezing_on();
  if (freezes_) {
    const std::size_t allowances = freezing.allowances.load(std::memory_order_relaxed);
    retries_refused_ = std::exchange(allowances_seen_, allowances) != allowances;
  }
  if (std::exchange(thaws_, 0) > started.size() / kManyThaws) {
    laps_to_freeze_ =
        static_cast<std::uint8_t>(std::min<unsigned>(laps_to_freeze_ * 2U, kMostLapsToFreeze));
    quiet_laps_ = 0;
  } else if (++quiet_laps_ == kQuietLaps) {
    laps_to_freeze_ =
        static_cast<std::uint8_t>(std::max<unsigned>(laps_to_freeze_ / 2U, kLeastLapsToFreeze));
    quiet_laps_ = 0;
  }
}

bool Sweep::visit_some(std::uint64_t deadline) noexcept {
  stack::Trimmer trimmer;
  Freezer freezer(Freezer::When::kIdle);
  do {
    for (unsigned i = 0; i < kVisitsAtOnce && next_ != nullptr; ++i) {
      visit(*next_, trimmer, freezer);
      next_ = GreenletList::after(*next_);
    }
    trimmer.flush();
    freezer.flush();
  } while (next_ != nullptr && platform::now(Clock::kMonotonic) < deadline);
  return freezer.has_frozen();
}

void Sweep::visit(Greenlet& greenlet, stack::Trimmer& trimmer, Freezer& freezer) const noexcept {
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  if (greenlet.is_trimmed()) {
    if (freezes_ && !greenlet.is_frozen() && (!greenlet.is_refused() || retries_refused_)) {
      visit_trimmed(greenlet, freezer);
    }
    return;
  }
  const unsigned laps = greenlet.laps_waited();
  if (laps < greenlet.laps_to_trim_) {
    greenlet.set_mark(laps + 1);
    return;
  }
  greenlet.laps_to_trim_ =
      static_cast<std::uint8_t>(std::min(greenlet.laps_to_trim_ * 2U, kMostLapsToTrim));
  if (!freezes_ || laps_to_freeze_ != kLeastLapsToFreeze) {
    trim(greenlet, trimmer);
    return;
  }
  // It has been idle for long enough to be frozen at once.
  const Freezer::Result result = freezer.freeze(greenlet);
  if (result != Freezer::Result::kFrozen) {
    trim(greenlet, trimmer);
  }
  if (result == Freezer::Result::kRefused) {
    greenlet.set_mark(Greenlet::kRefused);
  }
}

void Sweep::visit_trimmed(Greenlet& greenlet, Freezer& freezer) const noexcept {
  const unsigned laps = greenlet.laps_since_trimmed();
  if (laps < laps_to_freeze_) {
    greenlet.set_mark(Greenlet::kTrimmed + laps + 1);
  } else if (freezer.freeze(greenlet) == Freezer::Result::kRefused) {
    greenlet.set_mark(Greenlet::kRefused);
  }
}

std::size_t Sweep::freeze_all(const GreenletList& started) noexcept {
  Freezer freezer(Freezer::When::kNow);
  std::size_t count = 0;
  for (Greenlet& greenlet : started) {
    count += freezer.freeze(greenlet) == Freezer::Result::kFrozen ? 1 : 0;
  }
  return count;
}

void Sweep::trim(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept {
  greenlet.set_mark(Greenlet::kTrimmed);
  const stack::Region& region = greenlet.region_;
  std::byte* const used = greenlet.context_.stack_pointer();
  // The greenlet may have switched away from a stack that its own C code has made.
  if (used > region.low && used <= region.boundary) {
    trimmer.drop_all_but(region, used - std::min<std::ptrdiff_t>(kRedZone, used - region.low),
                         greenlet.stack_state_.data_end(region.boundary));
  }
}

void Sweep::trim_all(const GreenletList& started, stack::Trimmer& trimmer) noexcept {
  for (Greenlet& greenlet : started) {
    if (greenlet.state() == State::kSuspended && !greenlet.is_trimmed()) {
      trim(greenlet, trimmer);
    }
  }
}

std::size_t trim_now() noexcept {
  stack::Trimmer trimmer(stack::Trimmer::Counts::kYes);
  if (Thread* const thread = ThreadRegistry::current_or_null()) {
    thread->trim(trimmer);
  }
  trimmer.flush();
  stack::trim_reserve();
  return trimmer.given_back();
}

}  // namespace greenlet::core
