#include "core/timeline.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

#include "core/listing.h"
#include "core/naming.h"
#include "core/thread_registry.h"
#include "core/tracing.h"
#include "cpython/errors.h"
#include "cpython/locks.h"
#include "platform/clock.h"

namespace greenlet::core {
namespace {

// Outside of Python's memory: to allocate there starts no collection.
template <typename T>
T* make() noexcept {
  void* const memory = PyMem_RawMalloc(sizeof(T));
  return memory != nullptr ? new (memory) T() : nullptr;
}

template <typename T>
void unmake(T* object) noexcept {
  object->~T();
  PyMem_RawFree(object);
}

// The name of the calling thread's threading.Thread; empty if it has none.
Ref name_of_thread(unsigned long ident) noexcept {
  const cpython::ExceptionAside aside;
  const Ref module_name = Ref::take(PyUnicode_FromString("threading"));
  const Ref threading = Ref::take(module_name ? PyImport_GetModule(module_name.get()) : nullptr);
  const Ref active =
      Ref::take(threading ? PyObject_GetAttrString(threading.get(), "_active") : nullptr);
  const Ref key = Ref::take(active ? PyLong_FromUnsignedLong(ident) : nullptr);
  const Ref thread = Ref::take(key ? PyObject_GetItem(active.get(), key.get()) : nullptr);
  Ref name = Ref::take(thread ? PyObject_GetAttrString(thread.get(), "name") : nullptr);
  PyErr_Clear();
  return name && PyUnicode_CheckExact(name.get()) ? std::move(name) : Ref();
}

}  // namespace

// --- start and stop ---

bool Timeline::start(ModuleState& module, std::size_t limit, PartialField partial) noexcept {
  auto* const timeline = make<Timeline>();
  if (timeline == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  timeline->units_left_ = limit;
  timeline->plain_type_ = name_of_type(module.greenlet_type);
  Thread* const own = ThreadRegistry::current();
  const char* problem = nullptr;
  if (own != nullptr) {
    const cpython::StoppedWorld stopped;
    if (module.timeline != nullptr) {
      problem = "a recording of switches is running already";
    } else if (module.hook.function != nullptr) {
      problem = "another profiler has set the hook for switches, so they cannot be recorded";
    } else {
      module.timeline = timeline;
      module.partial = partial;
      timeline->first_ = module.numbered_greenlets + 2;
      timeline->start_ = platform::now(platform::Clock::kMonotonic);
      const std::uint64_t mark = timeline->first_ - 1;
      ThreadRegistry::for_each_in_use(module, [&](Thread& thread) {
        thread.main().set_serial(mark);
        for (Greenlet& greenlet : thread.started()) {
          greenlet.set_serial(mark);
        }
        thread.set_recorded(timeline->add_thread(thread, 0));
      });
      set_hook_when_stopped(module, {.function = &hook, .data = nullptr});
    }
  }
  if (own == nullptr || problem != nullptr) {
    destroy(timeline);
    if (problem != nullptr) {
      PyErr_SetString(PyExc_RuntimeError, problem);
    }
    return false;
  }
  // The running greenlet, because `run` is gone when it finishes. (Those that other threads run
  // get their names at their first switch.)
  Greenlet& running = own->running();
  Names names = names_of(running, running.run_as_is(), running.first_argument());
  if (module.timeline == timeline && own->recorded() != nullptr && !timeline->knows(running)) {
    const std::lock_guard lock(timeline->mutex_);
    timeline->number(running, names, *own->recorded());
  }
  return true;
}

Timeline* Timeline::take(ModuleState& module) noexcept {
  Timeline* const timeline = std::exchange(module.timeline, nullptr);
  if (timeline == nullptr) {
    return nullptr;
  }
  timeline->stop_ = platform::now(platform::Clock::kMonotonic) - timeline->start_;
  module.numbered_greenlets = timeline->first_ + timeline->greenlet_count_;
  if (module.hook.function == &hook) {  // another profiler may have taken our place
    set_hook_when_stopped(module, {});
  }
  ThreadRegistry::for_each(module, [](Thread& thread) {
    if (RecordedThread* const recorded = thread.recorded()) {
      recorded->running = thread.running().object();
      thread.set_recorded(nullptr);
    }
  });
  return timeline;
}

Ref Timeline::stop(ModuleState& module) noexcept {
  const Ref list = list_greenlets(module, 0);
  const auto count = static_cast<std::size_t>(list ? PyTuple_GET_SIZE(list.get()) : 0);
  auto* const living = static_cast<Living*>(PyMem_RawCalloc(count + 1, sizeof(Living)));
  Timeline* timeline = nullptr;
  {
    const cpython::StoppedWorld stopped;
    for (std::size_t i = 0; living != nullptr && i < count && module.timeline != nullptr; ++i) {
      const Greenlet& greenlet =
          Greenlet::of(PyTuple_GET_ITEM(list.get(), static_cast<Py_ssize_t>(i)));
      const Thread* const owner = greenlet.thread();
      const RecordedThread* const thread = owner != nullptr ? owner->recorded() : nullptr;
      living[i] = {.serial = greenlet.serial(),
                   .thread = thread != nullptr ? thread->index : kNoIndex,
                   .run = Py_XNewRef(greenlet.run_as_is()),
                   .first_argument = Py_XNewRef(greenlet.first_argument())};
    }
    timeline = take(module);
  }
  Ref result;
  if (timeline == nullptr) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_RuntimeError, "no recording of switches is running");
    }
  } else if (!list || living == nullptr) {
    PyErr_NoMemory();
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      timeline->add_living(Greenlet::of(PyTuple_GET_ITEM(list.get(), static_cast<Py_ssize_t>(i))),
                           living[i]);
    }
    result = timeline->to_tuple();
  }
  for (std::size_t i = 0; living != nullptr && i < count; ++i) {
    Py_XDECREF(living[i].run);
    Py_XDECREF(living[i].first_argument);
  }
  PyMem_RawFree(living);
  if (timeline != nullptr) {
    destroy(timeline);
  }
  return result;
}

// Gives a greenlet that is alive at the end the name that it has now. Adds it if it did not switch
// during the recording.
void Timeline::add_living(const Greenlet& greenlet, const Living& living) noexcept {
  Names names = names_of(greenlet, living.run, living.first_argument);
  if (living.serial >= first_ && living.serial - first_ < greenlet_count_) {
    greenlet_at(living.serial - first_).given = std::move(names.given);
  } else if (living.thread != kNoIndex) {
    units_left_ = std::max(units_left_, kUnitsOfGreenlet);  // they take no more than they do anyway
    RecordedGreenlet* const recorded = add_greenlet(names);
    if (recorded == nullptr) {
      return;
    }
    recorded->address = greenlet.object();
    recorded->thread = living.thread;
    recorded->flags =
        (living.serial == first_ - 1 ? RecordedGreenlet::kWasThere : 0U) | flags_of(greenlet);
  }
}

void Timeline::discard(ModuleState& module) noexcept {
  Timeline* timeline = nullptr;
  {
    const cpython::StoppedWorld stopped;
    timeline = take(module);
  }
  if (timeline != nullptr) {
    destroy(timeline);
  }
}

Timeline::~Timeline() {
  while (threads_ != nullptr) {
    RecordedThread* const thread = std::exchange(threads_, threads_->next);
    while (thread->first != nullptr) {
      PyMem_RawFree(std::exchange(thread->first, thread->first->next));
    }
    unmake(thread);
  }
  for (std::size_t i = 0; i < greenlet_count_; ++i) {
    greenlet_at(i).~RecordedGreenlet();
  }
  for (std::size_t i = 0; i < block_count_; ++i) {
    PyMem_RawFree(blocks_[i]);
  }
  PyMem_RawFree(blocks_);
}

void Timeline::destroy(Timeline* timeline) noexcept { unmake(timeline); }

// --- the hook ---

void Timeline::hook(int what, PyObject* origin, PyObject* target, void*) noexcept {
  Greenlet& from = Greenlet::of(origin);
  Greenlet& to = Greenlet::of(target);
  // Not by the `data`: another profiler may set this hook again when the recording has ended.
  Timeline* const self = to.module().timeline;
  if (self == nullptr) [[unlikely]] {
    return;
  }
  RecordedThread* const thread = to.thread()->recorded();
  if (thread != nullptr && thread->is_full) [[unlikely]] {
    ++thread->lost;
    return;
  }
  const std::uint64_t time = platform::now(platform::Clock::kMonotonic) - self->start_;
  if (thread != nullptr && thread->at != thread->end_of_chunk && self->knows(from) &&
      self->knows(to) && (what & SwitchHook::kOriginFinished) == 0) [[likely]] {
    *thread->at++ = {.time_and_what = time << RecordedSwitch::kBits | static_cast<unsigned>(what),
                     .origin = self->index_of(from),
                     .target = self->index_of(to)};
    return;
  }
  self->record_slowly(time, static_cast<unsigned>(what), from, to);
}

void Timeline::record_slowly(std::uint64_t time, unsigned what, Greenlet& origin,
                             Greenlet& target) noexcept {
  const ModuleState& module = target.module();
  const std::uint64_t first = first_;
  const bool has_finished = (what & SwitchHook::kOriginFinished) != 0;
  const bool is_origin_new = !knows(origin), is_target_new = !knows(target);
  // To look for names may detach this thread, and another one may stop the recording. So `this` may
  // be gone until the look whether the recording still runs.
  Names of_origin, of_target;
  if (is_origin_new) {
    of_origin = names_of(origin, origin.run_as_is(), origin.first_argument());
  } else if (has_finished) {
    of_origin.given = name_given_to(origin);
  }
  if (is_target_new) {
    of_target = names_of(target, target.run_as_is(), target.first_argument());
  }
  if (module.timeline != this || first_ != first) {
    return;
  }
  const std::lock_guard lock(mutex_);
  Thread& owner = *target.thread();
  if (owner.recorded() == nullptr) {
    owner.set_recorded(add_thread(owner, time));
  }
  RecordedThread* const thread = owner.recorded();
  if (thread == nullptr) {
    return;  // there is no memory
  }
  if (thread->is_full || (!knows(origin) && !number(origin, of_origin, *thread)) ||
      (!knows(target) && !number(target, of_target, *thread)) ||
      (thread->at == thread->end_of_chunk && !add_chunk(*thread))) {
    if (!std::exchange(thread->is_full, true)) {
      thread->lost_at = time;
      thread->end_of_chunk = thread->at;  // all later ones come here
    }
    ++thread->lost;
    return;
  }
  *thread->at++ = {.time_and_what = time << RecordedSwitch::kBits | what,
                   .origin = index_of(origin),
                   .target = index_of(target)};
  if (has_finished) {
    RecordedGreenlet& finished = greenlet_at(index_of(origin));
    if (of_origin.given) {
      finished.given = std::move(of_origin.given);
    }
    finished.flags |= RecordedGreenlet::kFinished;
  }
}

Timeline::Names Timeline::names_of(const Greenlet& greenlet, PyObject* run,
                                   PyObject* first_argument) noexcept {
  PyTypeObject* const type = Py_TYPE(greenlet.object());
  const bool is_plain = type == greenlet.module().greenlet_type;  // they have one string for all
  return {.given = name_given_to(greenlet),
          .function = name_of_function(greenlet, run, first_argument, greenlet.module().partial),
          .type = is_plain ? Ref() : name_of_type(type)};
}

// --- what it keeps ---

bool Timeline::take_units(std::size_t units) noexcept {
  if (units_left_ < units) {
    return false;
  }
  units_left_ -= units;
  return true;
}

RecordedThread* Timeline::add_thread(Thread& thread, std::uint64_t time) noexcept {
  auto* const made = make<RecordedThread>();
  if (made != nullptr) {
    made->next = std::exchange(threads_, made);
    made->index = thread_count_++;
    made->ident = thread.tstate()->thread_id;
    made->native_id = thread.tstate()->native_thread_id;
    made->begin = time;
  }
  return made;
}

bool Timeline::add_chunk(RecordedThread& thread) noexcept {
  const std::size_t capacity =
      std::min(units_left_, thread.first == nullptr ? kFirstChunk : kChunk);
  if (capacity == 0) {
    return false;
  }
  auto* const chunk = static_cast<RecordedChunk*>(
      PyMem_RawMalloc(sizeof(RecordedChunk) + capacity * sizeof(RecordedSwitch)));
  if (chunk == nullptr) {
    return false;
  }
  take_units(capacity);
  *chunk = {.next = nullptr, .capacity = capacity, .count = capacity};
  (thread.last != nullptr ? thread.last->next : thread.first) = chunk;
  thread.last = chunk;
  thread.at = chunk->switches();
  thread.end_of_chunk = thread.at + capacity;
  return true;
}

RecordedGreenlet* Timeline::add_greenlet(Names& names) noexcept {
  if (!take_units(kUnitsOfGreenlet)) {
    return nullptr;
  }
  if (greenlet_count_ == block_count_ * kGreenletsPerBlock) {
    void* const block = PyMem_RawMalloc(kGreenletsPerBlock * sizeof(RecordedGreenlet));
    void* const blocks = PyMem_RawRealloc(blocks_, (block_count_ + 1) * sizeof(*blocks_));
    if (blocks != nullptr) {
      blocks_ = static_cast<RecordedGreenlet**>(blocks);
    }
    if (block == nullptr || blocks == nullptr) {
      PyMem_RawFree(block);
      return nullptr;
    }
    blocks_[block_count_++] = static_cast<RecordedGreenlet*>(block);
  }
  auto* const made = new (&greenlet_at(greenlet_count_++)) RecordedGreenlet();
  made->given = std::move(names.given);
  made->function = std::move(names.function);
  made->type = names.type ? std::move(names.type) : Ref::share(plain_type_.get());
  return made;
}

bool Timeline::number(Greenlet& greenlet, Names& names, const RecordedThread& thread) noexcept {
  RecordedGreenlet* const made = add_greenlet(names);
  if (made == nullptr) {
    return false;
  }
  made->address = greenlet.object();
  made->thread = thread.index;
  made->flags =
      flags_of(greenlet) | (greenlet.serial() == first_ - 1 ? RecordedGreenlet::kWasThere : 0U);
  greenlet.set_serial(first_ + greenlet_count_ - 1);
  return true;
}

std::uint32_t Timeline::flags_of(const Greenlet& greenlet) noexcept {
  return (greenlet.is_main() ? RecordedGreenlet::kMain : 0U) |
         (greenlet.is_scheduler() ? RecordedGreenlet::kScheduler : 0U);
}

// At once: the greenlet of a thread that has ended is not looked at again, when the recording
// stops.
void Timeline::note_scheduler(const Greenlet& greenlet) noexcept {
  Timeline* const self = greenlet.module().timeline;
  if (self == nullptr) {
    return;
  }
  const std::lock_guard lock(self->mutex_);
  if (self->knows(greenlet)) {
    self->greenlet_at(self->index_of(greenlet)).flags |= RecordedGreenlet::kScheduler;
  }
}

// --- threads ---

void Timeline::note_begin(Thread& thread) noexcept {
  const ModuleState& module = thread.module();
  if (module.timeline == nullptr) {
    return;
  }
  Ref name = name_of_thread(thread.tstate()->thread_id);
  Timeline* const self = module.timeline;
  if (self == nullptr) {
    return;
  }
  const std::uint64_t time = platform::now(platform::Clock::kMonotonic) - self->start_;
  const std::lock_guard lock(self->mutex_);
  if (thread.recorded() == nullptr) {
    thread.set_recorded(self->add_thread(thread, time));
  }
  if (thread.recorded() != nullptr) {
    thread.recorded()->name = std::move(name);
    thread.recorded()->worked_at_begin = platform::now(platform::Clock::kThreadCpu);
  }
}

void Timeline::note_end(Thread& thread, bool in_own_thread) noexcept {
  const Timeline* const self = thread.module().timeline;
  if (RecordedThread* const recorded = thread.recorded(); self != nullptr && recorded != nullptr) {
    recorded->end = platform::now(platform::Clock::kMonotonic) - self->start_;
    recorded->worked_at_end = in_own_thread ? platform::now(platform::Clock::kThreadCpu) : 0;
    thread.set_recorded(nullptr);
  }
}

}  // namespace greenlet::core
