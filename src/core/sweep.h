// Memory follows use: what greenlets that wait do not need is given back to the kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/greenlet.h"
#include "stack/stack.h"

namespace greenlet::core {

// Goes around the started greenlets of one thread, a few at a time, and trims those that have been
// waiting for a second or longer: it gives back the pages below their stack pointer and above their
// last Python frame. Also tells the thread's pool when a lap of its own begins. Touched by its
// thread only.
//
// No clock runs for this. The thread says when something happens: a greenlet starts or is visited
// by the collector, or one that the sweep has marked goes on. So it costs nothing while nothing
// happens, and little otherwise: see the constants in sweep.cpp.
class Sweep {
 public:
  // Something has happened. `first` is the first one of the list, `main` the main greenlet.
  void note(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept {
    if (--until_look_ == 0) [[unlikely]] {
      look(first, main, pool);
    }
  }
  // A greenlet with a mark is about to go on.
  void note_marked(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept;
  // What the running greenlet becomes when it is left now: suspended, perhaps with a mark. Where
  // few greenlets run, those that a lap leaves are used up before the next is due, and nothing
  // would begin it.
  State state_when_left() noexcept { return std::exchange(state_when_left_, State::kSuspended); }
  // To be called before `greenlet` leaves the list.
  void forget(const Greenlet& greenlet) noexcept {
    if (next_ == &greenlet) [[unlikely]] {
      next_ = greenlet.next_;
    }
  }

  // Trims every waiting greenlet of the list now.
  static void trim_all(Greenlet* first, stack::Trimmer& trimmer) noexcept;

 private:
  void look(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept;
  // Takes part if it is time for that. False if it was called a moment ago.
  bool look_at_the_clock(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept;
  void step(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept;
  void begin_lap(Greenlet* first, Greenlet& main, stack::Pool& pool) noexcept;
  void visit_some(std::uint64_t deadline) noexcept;
  static void visit(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept;
  static void trim(Greenlet& greenlet, stack::Trimmer& trimmer) noexcept;

  Greenlet* next_ = nullptr;  // to be visited; null while no lap is under way
  std::uint32_t until_look_ = 1;
  std::uint32_t look_interval_ = 1;
  std::uint32_t marks_left_ = 0;  // see kMostMarks
  State state_when_left_ = State::kSuspended;
  std::uint32_t laps_ = 0;
  // In nanoseconds, of the monotonic clock.
  std::uint64_t next_look_ = 0;
  std::uint64_t next_lap_ = 0;
  std::uint64_t lap_began_ = 0;
  std::uint64_t lap_work_ = 0;        // so much of the time since then was spent here
  std::uint64_t accounted_ = 0;       // credit_ has the share of the time until then
  std::uint64_t accounted_work_ = 0;  // the thread's own time then
  std::int64_t credit_ = 0;           // so long the sweep may work
};

}  // namespace greenlet::core
