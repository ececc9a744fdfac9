// A recording that has stopped, as Python objects.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/timeline.h"

namespace greenlet::core {
namespace {

Ref or_none(const Ref& object) noexcept { return Ref::share(object ? object.get() : Py_None); }

unsigned long long number_of(const void* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address);
}

// The switches of a thread as bytes, with each time as the difference from the one before. (Small
// numbers compress well.) Frees the chunks as it goes.
Ref bytes_of(RecordedThread& thread) noexcept {
  if (thread.last != nullptr) {
    thread.last->count = static_cast<std::size_t>(thread.at - thread.last->switches());
  }
  std::size_t count = 0;
  for (const RecordedChunk* chunk = thread.first; chunk != nullptr; chunk = chunk->next) {
    count += chunk->count;
  }
  Ref bytes = Ref::take(
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(count * sizeof(RecordedSwitch))));
  if (!bytes) {
    return {};
  }
  char* to = PyBytes_AS_STRING(bytes.get());
  std::uint64_t before = 0;
  constexpr std::uint64_t kWhat = (1U << RecordedSwitch::kBits) - 1;
  while (thread.first != nullptr) {
    RecordedChunk* const chunk = std::exchange(thread.first, thread.first->next);
    for (std::size_t i = 0; i < chunk->count; ++i, to += sizeof(RecordedSwitch)) {
      RecordedSwitch one = chunk->switches()[i];
      // Never less than the one before. (Where two threads race, the look for a name may run the
      // end of an object, and that may switch.)
      const std::uint64_t time = std::max(one.time_and_what >> RecordedSwitch::kBits, before);
      one.time_and_what = (time - std::exchange(before, time)) << RecordedSwitch::kBits |
                          (one.time_and_what & kWhat);
      std::memcpy(to, &one, sizeof(one));
    }
    PyMem_RawFree(chunk);
  }
  thread.last = nullptr;
  return bytes;
}

}  // namespace

Ref Timeline::tuple_of_threads() noexcept {
  Ref all = Ref::take(PyTuple_New(static_cast<Py_ssize_t>(thread_count_)));
  for (RecordedThread* thread = threads_; all && thread != nullptr; thread = thread->next) {
    const Ref name = or_none(thread->name);
    const Ref switches = bytes_of(*thread);
    PyObject* const made =
        switches ? Py_BuildValue("KKOKKKKKKKO", thread->ident, thread->native_id, name.get(),
                                 thread->begin, thread->end, thread->worked_at_begin,
                                 thread->worked_at_end, thread->lost, thread->lost_at,
                                 number_of(thread->running), switches.get())
                 : nullptr;
    if (made == nullptr) {
      return {};
    }
    PyTuple_SET_ITEM(all.get(), static_cast<Py_ssize_t>(thread->index), made);
  }
  return all;
}

Ref Timeline::tuple_of_greenlets() noexcept {
  Ref all = Ref::take(PyTuple_New(static_cast<Py_ssize_t>(greenlet_count_)));
  for (std::size_t i = 0; all && i < greenlet_count_; ++i) {
    const RecordedGreenlet& greenlet = greenlet_at(i);
    const Ref given = or_none(greenlet.given);
    const Ref function = or_none(greenlet.function);
    const Ref type = or_none(greenlet.type);
    PyObject* const made =
        Py_BuildValue("OOOKII", given.get(), function.get(), type.get(),
                      number_of(greenlet.address), greenlet.thread, greenlet.flags);
    if (made == nullptr) {
      return {};
    }
    PyTuple_SET_ITEM(all.get(), static_cast<Py_ssize_t>(i), made);
  }
  return all;
}

Ref Timeline::to_tuple() noexcept {
  const Ref threads = tuple_of_threads();
  const Ref greenlets = threads ? tuple_of_greenlets() : Ref();
  return greenlets ? Ref::take(Py_BuildValue("KOO", stop_, threads.get(), greenlets.get())) : Ref();
}

}  // namespace greenlet::core
