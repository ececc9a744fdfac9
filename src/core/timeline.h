// Records every switch of an interpreter: when, in which thread, from which greenlet to which. It
// uses the hook of tracing.h. timeline_result.cpp makes Python objects of a recording.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "core/module_state.h"
#include "core/ref.h"
#include "core/thread.h"
#include "platform/mutex.h"

namespace greenlet::core {

// A switch. The greenlets are given by their index in the recording.
struct RecordedSwitch {
  static constexpr unsigned kBits = 2;  // SwitchHook::What, below the time
  std::uint64_t time_and_what;          // nanoseconds since the beginning
  std::uint32_t origin, target;
};
static_assert(sizeof(RecordedSwitch) == 16);

// What is kept of a greenlet, also when it is long gone: names, never the greenlet itself.
struct RecordedGreenlet {
  enum Flag : std::uint32_t {
    kMain = 1,
    kScheduler = 2,
    kWasThere = 4,  // it had started before the recording began
    kFinished = 8,
  };
  Ref given;                      // see naming.h
  Ref function;                   //
  Ref type;                       //
  const void* address = nullptr;  // of the object; another greenlet may have had it, too
  std::uint32_t thread = 0;       // the RecordedThread::index
  std::uint32_t flags = 0;
};

// Switches of one thread, in a list.
struct RecordedChunk {
  RecordedChunk* next;
  std::size_t capacity, count;  // the count is right when the thread has left the chunk
  RecordedSwitch* switches() noexcept { return reinterpret_cast<RecordedSwitch*>(this + 1); }
};

// What is kept of a thread. Its own thread writes it, others while the world is stopped.
struct RecordedThread {
  RecordedThread* next = nullptr;
  std::uint32_t index = 0;
  std::uint64_t ident = 0, native_id = 0;
  Ref name;                 // of a thread that has come during the recording
  std::uint64_t begin = 0;  // nanoseconds since the beginning
  std::uint64_t end = 0;    // 0 if it has not ended
  // How long it had worked, on its own clock, when it came and when it ended; 0 if not known.
  std::uint64_t worked_at_begin = 0, worked_at_end = 0;
  const void* running = nullptr;  // the running greenlet when the recording stops
  RecordedSwitch* at = nullptr;   // where the next switch goes, in the last chunk
  RecordedSwitch* end_of_chunk = nullptr;
  RecordedChunk* first = nullptr;
  RecordedChunk* last = nullptr;
  bool is_full = false;       // the limit was reached, so no more switches of the thread are kept
  std::uint64_t lost = 0;     // that were not kept
  std::uint64_t lost_at = 0;  // when the first of these was
};

// A recording. ModuleState::timeline points to it while it runs.
//
// The hook runs in the thread that switches. It writes to that thread's chunk, without a lock; the
// mutex guards the rest (new chunks, greenlets, threads). Start and stop stop the world. The hook
// does not detach the thread, except while it looks for names; so no thread is inside of it then,
// and after it has found names, the hook looks whether this recording still runs.
//
// A greenlet gets a number (Greenlet::serial()) at its first switch in a recording: first_ plus its
// index. Numbers are never used twice, so a number below first_ is one of an earlier recording.
// The number first_ - 1 marks the greenlets that had started when the recording began.
class Timeline {
 public:
  // What the limit counts. A switch takes one, and a greenlet takes so many.
  static constexpr std::size_t kUnitsOfGreenlet = 3;

  // Begins to record. False with an exception set if a recording or another profiler runs already,
  // or if there is no memory. `limit` bounds the memory, in RecordedSwitches.
  static bool start(ModuleState& module, std::size_t limit, PartialField partial) noexcept;
  // Ends the recording and returns it as a tuple; see stubs of _timeline_stop(). Empty with an
  // exception set if none runs, or if there is no memory; none runs afterwards in either case.
  static Ref stop(ModuleState& module) noexcept;
  // Ends the recording, if there is one, and forgets it.
  static void discard(ModuleState& module) noexcept;

  // A Thread has been made by the calling thread (this may run Python code), or ends.
  static void note_begin(Thread& thread) noexcept;
  static void note_end(Thread& thread, bool in_own_thread) noexcept;
  // Greenlet::set_scheduler() has been called.
  static void note_scheduler(const Greenlet& greenlet) noexcept;

  Timeline() = default;
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

 private:
  static void destroy(Timeline* timeline) noexcept;
  // Detaches the recording from the interpreter, with the world stopped. Null if none runs.
  static Timeline* take(ModuleState& module) noexcept;

  static void hook(int what, PyObject* origin, PyObject* target, void* data) noexcept;
  void record_slowly(std::uint64_t time, unsigned what, Greenlet& origin,
                     Greenlet& target) noexcept;
  bool knows(const Greenlet& greenlet) const noexcept { return greenlet.serial() >= first_; }
  std::uint32_t index_of(const Greenlet& greenlet) const noexcept {
    return static_cast<std::uint32_t>(greenlet.serial() - first_);
  }

  struct Names {
    Ref given, function, type;
  };
  // Without the class if that is greenlet itself.
  static Names names_of(const Greenlet& greenlet, PyObject* run, PyObject* first_argument) noexcept;

  // With the mutex held.
  bool take_units(std::size_t units) noexcept;
  RecordedThread* add_thread(Thread& thread, std::uint64_t time) noexcept;
  bool add_chunk(RecordedThread& thread) noexcept;
  RecordedGreenlet* add_greenlet(Names& names) noexcept;
  bool number(Greenlet& greenlet, Names& names, const RecordedThread& thread) noexcept;
  static std::uint32_t flags_of(const Greenlet& greenlet) noexcept;
  RecordedGreenlet& greenlet_at(std::size_t index) noexcept {
    return blocks_[index / kGreenletsPerBlock][index % kGreenletsPerBlock];
  }

  // What stop() finds of a greenlet that is alive then.
  struct Living {
    std::uint64_t serial;
    std::uint32_t thread;            // or kNoIndex
    PyObject *run, *first_argument;  // owned, or null
  };
  void add_living(const Greenlet& greenlet, const Living& living) noexcept;

  // timeline_result.cpp
  Ref to_tuple() noexcept;
  Ref tuple_of_threads() noexcept;
  Ref tuple_of_greenlets() noexcept;

  static constexpr std::size_t kGreenletsPerBlock = 1024;
  static constexpr std::size_t kFirstChunk = 256;
  static constexpr std::size_t kChunk = 4096;
  static constexpr std::uint32_t kNoIndex = UINT32_MAX;

  std::uint64_t start_ = 0;  // on the clock
  std::uint64_t stop_ = 0;   // nanoseconds since start_
  std::uint64_t first_ = 0;

  platform::Mutex mutex_;
  std::size_t units_left_ = 0;
  RecordedThread* threads_ = nullptr;  // the last one first
  std::uint32_t thread_count_ = 0;
  RecordedGreenlet** blocks_ = nullptr;
  std::size_t block_count_ = 0;
  std::size_t greenlet_count_ = 0;
  Ref plain_type_;  // the name of the class greenlet
};

}  // namespace greenlet::core
