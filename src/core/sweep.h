// Gives back memory that waiting greenlets do not need, while the thread does its work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/greenlet.h"
#include "core/greenlet_list.h"
#include "stack/stack.h"

namespace greenlet::core {

// Goes around the started greenlets of one thread, a few at a time, and trims those that have been
// waiting for a second or longer: it gives back the pages below their stack pointer and above their
// last Python frame. Where there are many, it freezes them (freezing.h). Also tells the thread's
// pool when a lap of the pool begins. Touched by its thread only.
//
// No timer runs for this. The thread notes events: a greenlet starts, the collector visits one, or
// a greenlet that the sweep has marked goes on. So it costs nothing while nothing happens, and
// little otherwise: see the constants in sweep.cpp.
class Sweep {
 public:
  // An event has happened. `started` are the greenlets to go around, `main` is the main greenlet.
  void note(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept {
    if (--until_look_ == 0) [[unlikely]] {
      on_look_due(started, main, pool);
    }
  }
  // A greenlet with a mark is about to go on.
  void note_marked(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept;
  // A frozen greenlet has been thawed.
  void note_thaw() noexcept { ++thaws_; }
  // Returns the state for the running greenlet, which is left now: suspended, perhaps with a mark.
  // A later switch to a marked greenlet is an event. New marks are needed where few greenlets run:
  // all marks of the last lap are gone before the next one is due, and only an event can begin it.
  State state_when_left() noexcept { return std::exchange(state_when_left_, State::kSuspended); }
  // Call it before `greenlet` leaves the list.
  void forget(const Greenlet& greenlet) noexcept {
    if (next_ == &greenlet) [[unlikely]] {
      next_ = GreenletList::after(greenlet);
    }
  }

  // Trims every waiting greenlet of the list now.
  static void trim_all(const GreenletList& started, stack::Trimmer& trimmer) noexcept;
  // Freezes every waiting greenlet of the list now, as far as that is possible; returns how many.
  static std::size_t freeze_all(const GreenletList& started) noexcept;

 private:
  static constexpr std::uint8_t kLeastLapsToFreeze = 4;

  // Enough events have happened: looks at the clock, and sets after how many more to look again.
  void on_look_due(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept;
  // Looks at the clock, and does some work if it is time for that. False if the last look was a
  // moment ago.
  bool work_if_due(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept;
  void step(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept;
  void begin_lap(const GreenletList& started, Greenlet& main, stack::Pool& pool) noexcept;
  // True if it has frozen greenlets.
  bool visit_some(std::uint64_t deadline) noexcept;
  void visit(Greenlet& greenlet, stack::Trimmer& trimmer, Freezer& freezer) const noexcept;
  void visit_trimmed(Greenlet& greenlet, Freezer& freezer) const noexcept;
  // Decides whether the lap that begins freezes, and what.
  void adapt_freezing(const GreenletList& started) noexcept;
  static void trim(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept;

  Greenlet* next_ = nullptr;  // to be visited; null while no lap is under way
  std::uint32_t until_look_ = 1;
  std::uint32_t look_interval_ = 1;
  std::uint32_t marks_left_ = 0;  // see kMostMarks
  State state_when_left_ = State::kSuspended;
  std::uint32_t laps_ = 0;
  bool freezes_ = false;                              // in this lap
  bool retries_refused_ = false;                      // in this lap: more modules are allowed
  std::size_t allowances_seen_ = 0;                   // FreezingSettings::allowances
  std::uint8_t laps_to_freeze_ = kLeastLapsToFreeze;  // see adapt_freezing()
  std::uint32_t quiet_laps_ = 0;                      // without many thaws
  std::size_t thaws_ = 0;                             // in this lap
  // Times and durations in nanoseconds, on the monotonic clock unless noted.
  std::uint64_t next_look_ = 0;
  std::uint64_t next_marks_ = 0;
  std::uint64_t next_lap_ = 0;
  std::uint64_t lap_began_ = 0;
  std::uint64_t lap_work_ = 0;        // how long it has visited in this lap
  std::uint64_t accounted_ = 0;       // credit_ contains the share of the time until this moment
  std::uint64_t accounted_work_ = 0;  // the thread's CPU time at that moment
  std::int64_t credit_ = 0;           // how long the sweep may work
};

// Gives back at once what suspended greenlets of the calling thread, its pool and the reserve do
// not need. Returns how many bytes of memory that were.
std::size_t trim_now() noexcept;

}  // namespace greenlet::core
