#include "core/listing.h"

#include <algorithm>
#include <utility>

#include "core/thread_registry.h"
#include "cpython/errors.h"
#include "cpython/locks.h"
#include "cpython/objects.h"
#include "cpython/stack_trace.h"
#include "platform/clock.h"

namespace greenlet::core {
namespace {

// An array outside of Python's memory: to make it runs no Python code, and a look may fill it while
// the world is stopped.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t size) noexcept
      : items_(static_cast<T*>(PyMem_RawCalloc(size, sizeof(T)))), size_(size) {}
  ~Array() { PyMem_RawFree(items_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  explicit operator bool() const noexcept { return items_ != nullptr; }
  T* items() const noexcept { return items_; }
  std::size_t size() const noexcept { return size_; }

 private:
  T* const items_;
  const std::size_t size_;
};

struct ThreadFound {
  unsigned long ident, native_id;
  PyObject *main, *running;  // owned
  std::size_t started;
  std::uint64_t switched_before;  // nanoseconds; what watch_threads() adds
};

void drop(const ThreadFound& thread) noexcept {
  Py_DECREF(thread.main);
  Py_DECREF(thread.running);
}
void drop(PyObject* greenlet) noexcept { Py_DECREF(greenlet); }
void drop(const cpython::CodePosition& frame) noexcept { Py_DECREF(frame.code); }

// What a look finds: as much of it as there is room for, with references, and how much there is.
template <typename T>
struct Found {
  T* const items;
  const std::size_t most;
  std::size_t count = 0;

  // Adds what `make` returns, which takes references.
  template <typename Make>
  void add(Make make) noexcept {
    if (count < most) {
      items[count] = make();
    }
    ++count;
  }
};

// Calls `look(found)` with the world stopped, and returns `use(items, count)`, which takes over the
// references. If there was too little room, looks again.
template <typename T, typename Look, typename Use>
Ref with_found(Look look, Use use) noexcept {
  constexpr std::size_t kMore = 16;
  for (std::size_t most = 0;;) {
    const Array<T> items(most + kMore);
    if (!items) {
      return Ref::take(PyErr_NoMemory());
    }
    Found<T> found{.items = items.items(), .most = items.size()};
    {
      const cpython::StoppedWorld stopped;
      look(found);
    }
    if (found.count <= items.size()) {
      return use(items.items(), found.count);
    }
    most = found.count;
    for (std::size_t i = 0; i < items.size(); ++i) {
      drop(items.items()[i]);
    }
  }
}

// A tuple of what `make` returns for each item; it takes over the item's references. Empty with an
// exception set if that fails once.
template <typename T, typename Make>
Ref tuple_of(const T* items, std::size_t count, Make make) noexcept {
  Ref all = Ref::take(PyTuple_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; i < count; ++i) {
    if (!all) {
      drop(items[i]);
      continue;
    }
    Ref made = make(items[i]);
    if (made) {
      PyTuple_SET_ITEM(all.get(), static_cast<Py_ssize_t>(i), made.release());
    } else {
      all = {};
    }
  }
  return all;
}

ThreadFound found_of(const Thread& thread) noexcept {
  return {.ident = thread.tstate()->thread_id,
          .native_id = thread.tstate()->native_thread_id,
          .main = Py_NewRef(thread.main().object()),
          .running = Py_NewRef(thread.running().object()),
          .started = thread.started().size(),
          .switched_before = 0};
}

Ref tuple_of_threads(const ThreadFound* found, std::size_t count) noexcept {
  return tuple_of(found, count, [](const ThreadFound& thread) {
    return Ref::take(Py_BuildValue("kkNNn", thread.ident, thread.native_id, thread.main,
                                   thread.running, static_cast<Py_ssize_t>(thread.started)));
  });
}

Ref tuple_of_watched_threads(const ThreadFound* found, std::size_t count) noexcept {
  return tuple_of(found, count, [](const ThreadFound& thread) {
    const Ref main = Ref::take(thread.main);
    const double seconds = static_cast<double>(thread.switched_before) / 1e9;
    return Ref::take(Py_BuildValue("kdNn", thread.ident, seconds, thread.running,
                                   static_cast<Py_ssize_t>(thread.started)));
  });
}

// A tuple of a tuple for each frame. Takes the references to the code objects over.
Ref tuple_of_frames(const cpython::CodePosition* found, std::size_t count) noexcept {
  return tuple_of(found, count, [](const cpython::CodePosition& frame) {
    const int line = PyCode_Addr2Line(frame.code, frame.offset);
    return Ref::take(Py_BuildValue("Nii", frame.code, frame.offset, line));
  });
}

}  // namespace

Ref list_threads(const ModuleState& module) noexcept {
  return with_found<ThreadFound>(
      [&](Found<ThreadFound>& found) {
        ThreadRegistry::for_each_in_use(
            module, [&](const Thread& thread) { found.add([&] { return found_of(thread); }); });
      },
      &tuple_of_threads);
}

Ref watch_threads(const ModuleState& module) noexcept {
  const std::uint64_t now = platform::now(platform::Clock::kMonotonic);
  return with_found<ThreadFound>(
      [&](Found<ThreadFound>& found) {
        ThreadRegistry::for_each_in_use(module, [&](Thread& thread) {
          if (!thread.has_attention(Thread::kWatched)) {
            thread.set_watched_since(now);
            thread.set_attention(Thread::kWatched, true);
          } else if (!thread.started().is_empty() && !thread.running().is_scheduler()) {
            found.add([&] {
              ThreadFound made = found_of(thread);
              made.switched_before = now - std::min(now, thread.watched_since());
              return made;
            });
          }
        });
      },
      &tuple_of_watched_threads);
}

Ref list_greenlets(const ModuleState& module, unsigned long ident) noexcept {
  return with_found<PyObject*>(
      [&](Found<PyObject*>& found) {
        ThreadRegistry::for_each_in_use(module, [&](const Thread& thread) {
          if (ident != 0 && thread.tstate()->thread_id != ident) {
            return;
          }
          found.add([&] { return Py_NewRef(thread.main().object()); });
          for (const Greenlet& greenlet : thread.started()) {
            if (!cpython::is_being_deallocated(greenlet.object())) {
              found.add([&] { return Py_NewRef(greenlet.object()); });
            }
          }
        });
      },
      [](PyObject* const* found, std::size_t count) {
        return tuple_of(found, count, [](PyObject* greenlet) { return Ref::take(greenlet); });
      });
}

Ref list_frames(Greenlet& greenlet) noexcept {
  bool is_known = false;
  Ref frames = with_found<cpython::CodePosition>(
      [&](Found<cpython::CodePosition>& found) {
        const State state = greenlet.state();
        const Thread* const owner = greenlet.thread();
        is_known = owner != nullptr && owner->is_living() &&
                   (state == State::kSuspended || state == State::kRunning);
        if (!is_known) {
          found.count = 0;
          return;
        }
        found.count =
            state == State::kSuspended
                ? cpython::trace_suspended(greenlet.stack_state(), found.items, found.most)
                : cpython::trace_running(owner->tstate(), found.items, found.most);
        for (std::size_t i = 0; i < std::min(found.count, found.most); ++i) {
          Py_INCREF(found.items[i].code);
        }
      },
      &tuple_of_frames);
  return !frames || is_known ? std::move(frames) : Ref::share(Py_None);
}

void track_origin(ModuleState& module, int frames) noexcept {
  const cpython::StoppedWorld stopped;
  module.origin_frames.store(frames, std::memory_order_relaxed);
  ThreadRegistry::for_each(module, [&](Thread& thread) { thread.set_notes_origin(frames != 0); });
}

void note_origin(Greenlet& greenlet) noexcept {
  constexpr int kMost = 100;
  cpython::CodePosition found[kMost];
  const auto most = static_cast<std::size_t>(
      std::clamp(greenlet.module().origin_frames.load(std::memory_order_relaxed), 0, kMost));
  const cpython::ExceptionAside aside;
  const std::size_t count = cpython::trace_innermost(cpython::current_thread_state(), found, most);
  for (std::size_t i = 0; i < count; ++i) {
    Py_INCREF(found[i].code);
  }
  Ref frames = tuple_of_frames(found, count);
  if (!frames) {
    PyErr_Clear();
  }
  // Other threads may have found it by gc.get_objects(), and give it a name.
  const cpython::ObjectLock lock(greenlet.object());
  if (Greenlet::Notes* const notes = frames ? greenlet.make_notes() : nullptr) {
    notes->origin = frames.release();
  }
}

bool exchange_name(Greenlet& greenlet, Ref& name) noexcept {
  const cpython::ObjectLock lock(greenlet.object());
  Greenlet::Notes* const notes = greenlet.make_notes();
  if (notes != nullptr) {
    name = Ref::take(std::exchange(notes->name, name.release()));
  }
  return notes != nullptr;
}

Ref name_of(const Greenlet& greenlet) noexcept {
  const cpython::ObjectLock lock(greenlet.object());
  return Ref::share(greenlet.notes() != nullptr ? greenlet.notes()->name : nullptr);
}

Description describe(Greenlet& greenlet) noexcept {
  Description found;
  const cpython::StoppedWorld stopped;
  found.state = greenlet.state();
  if (const Thread* const owner = greenlet.thread(); owner != nullptr && owner->is_living()) {
    found.ident = owner->tstate()->thread_id;
    found.native_id = owner->tstate()->native_thread_id;
  }
  found.stack_in_use = greenlet.stack_in_use();
  found.run = Ref::share(greenlet.run_as_is());
  found.first_argument = Ref::share(greenlet.first_argument());
  if (const Greenlet::Notes* const notes = greenlet.notes()) {
    found.origin = Ref::share(notes->origin);
  }
  return found;
}

}  // namespace greenlet::core
