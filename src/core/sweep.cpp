#include "core/sweep.h"

#include <algorithm>

#include "platform/clock.h"
#include "stack/trimmer.h"

namespace greenlet::core {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;

// A lap begins so long after the one before. A greenlet that four laps have found waiting, since it
// ran last, is trimmed by the next (Greenlet::laps_to_trim_). After that it has to wait twice as
// long the next time, and so on up to kMostLapsToTrim: to touch the pages again costs more than to
// give them back, so a greenlet that is deep every few seconds keeps them.
constexpr std::uint64_t kLap = 250 * kMillisecond;
constexpr unsigned kMostLapsToTrim = 16;
// The pool's laps are so many of ours.
constexpr unsigned kLapsOfPool = 4;

// In a lap the sweep takes at most so much of the time that the thread sleeps, and of the time that
// it works; and of all the time: where there are very many greenlets, laps are longer.
constexpr std::uint64_t kShareOfSleep = 4;
constexpr std::uint64_t kShareOfWork = 32;
constexpr std::uint64_t kShareOfAll = 50;
// It works so long at once at most, for the sake of whoever waits for the thread; and so many
// greenlets are visited between two looks at the clock.
constexpr std::int64_t kLongestStep = 5 * kMillisecond;
constexpr unsigned kVisitsAtOnce = 64;
// The clock is looked at so often at least, if something happens, and after so many events at most.
constexpr std::uint64_t kLookEvery = 10 * kMillisecond;
constexpr std::uint32_t kMostEvents = 16;
// In that time so many switches may leave a mark.
constexpr std::uint32_t kMostMarks = 4;

// The stack pointer may be so far above the lowest byte in use: the red zone of x86-64, with a bit
// more for other architectures.
constexpr std::size_t kRedZone = 512;

using platform::Clock;

}  // namespace

void Sweep::look(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
  if (look_at_the_clock(first, main, pool)) {
    state_when_left_ = Greenlet::marked(Greenlet::kOnlyMarked);
    look_interval_ = std::max(look_interval_ / 4, 1U);
  } else {
    look_interval_ = std::min(look_interval_ * 2, kMostEvents);
  }
  until_look_ = look_interval_;
}

void Sweep::note_marked(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
  look_at_the_clock(first, main, pool);
  if (marks_left_ != 0) {
    --marks_left_;
    state_when_left_ = Greenlet::marked(Greenlet::kOnlyMarked);
  }
}

bool Sweep::look_at_the_clock(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
  const std::uint64_t rough = platform::read(Clock::kCoarse);
  if (rough < next_look_) [[likely]] {
    return false;
  }
  next_look_ = rough + kLookEvery;
  marks_left_ = kMostMarks;
  if (next_ != nullptr || rough >= next_lap_) {
    step(first, main, pool);
  }
  return true;
}

void Sweep::step(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
  const std::uint64_t begin = platform::read(Clock::kMonotonic);
  if (next_ == nullptr) {
    begin_lap(first, main, pool);
    lap_began_ = begin;
    lap_work_ = 0;
  }
  // Another OS thread's clock may be behind; then all the time counts as work.
  const std::uint64_t worked = platform::read(Clock::kThreadCpu);
  const std::uint64_t elapsed = begin - accounted_;
  const std::uint64_t work = std::min(elapsed, worked - accounted_work_);
  accounted_ = begin;
  accounted_work_ = worked;
  credit_ += static_cast<std::int64_t>((elapsed - work) / kShareOfSleep + work / kShareOfWork);
  credit_ = std::min(credit_, kLongestStep);
  if (credit_ > 0) {
    visit_some(begin + static_cast<std::uint64_t>(credit_));
    // Not the time that others had the processor.
    accounted_work_ = platform::read(Clock::kThreadCpu);
    credit_ -= static_cast<std::int64_t>(accounted_work_ - worked);
    lap_work_ += accounted_work_ - worked;
    next_lap_ = lap_began_ + std::max(lap_work_ * kShareOfAll, kLap);
  }
}

void Sweep::begin_lap(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
  if (laps_++ % kLapsOfPool == 0) {
    pool.decay();
  }
  next_ = first;
  // It has no pages to give back. But with the mark it tells us when it goes on, which the main
  // greenlet of an idle program may do now and then, as the only one.
  if (main.raw_state() == State::kSuspended) {
    main.set_mark(Greenlet::kOnlyMarked);
  }
}

void Sweep::visit_some(std::uint64_t deadline) noexcept {
  stack::Trimmer trimmer;
  do {
    for (unsigned i = 0; i < kVisitsAtOnce && next_ != nullptr; ++i) {
      visit(*next_, trimmer);
      next_ = next_->next_;
    }
    trimmer.flush();
  } while (next_ != nullptr && platform::read(Clock::kMonotonic) < deadline);
}

void Sweep::visit(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept {
  if (greenlet.state() != State::kSuspended || greenlet.is_trimmed()) {
    return;
  }
  const unsigned laps = greenlet.laps_waited();
  if (laps < greenlet.laps_to_trim_) {
    greenlet.set_mark(laps + 1);
    return;
  }
  greenlet.laps_to_trim_ =
      static_cast<std::uint8_t>(std::min(greenlet.laps_to_trim_ * 2U, kMostLapsToTrim));
  trim(greenlet, trimmer);
}

void Sweep::trim(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept {
  greenlet.set_mark(Greenlet::kTrimmed);
  const stack::Region& region = greenlet.region_;
  std::byte* const used = greenlet.context_.stack_pointer();
  // It may have switched from a stack that C code of its own has made.
  if (used > region.low && used <= region.boundary) {
    trimmer.keep(region, used - std::min<std::ptrdiff_t>(kRedZone, used - region.low),
                 greenlet.stack_state_.data_end(region.boundary));
  }
}

void Sweep::trim_all(Greenlet* first, stack::Trimmer& trimmer) noexcept {
  for (Greenlet* greenlet = first; greenlet != nullptr; greenlet = greenlet->next_) {
    if (greenlet->state() == State::kSuspended && !greenlet->is_trimmed()) {
      trim(*greenlet, trimmer);
    }
  }
}

}  // namespace greenlet::core
