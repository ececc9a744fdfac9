// The checks of the layout at import, and the search for the table of type counts. Also the places
// in _PyThreadStateImpl: ImplFields::of(), and the limits for a stack, StackLimits::of_stack().
#include "cpython/layout.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cpython/impl_fields.h"
#include "cpython/internals.h"
#include "cpython/layout_probe.h"
#include "platform/readable.h"

namespace greenlet::cpython {
namespace {

// The same for all interpreters of a process. Several may write them at once, the same values.
constinit std::atomic<std::ptrdiff_t> g_thread_state_shift{0};
constinit std::atomic<std::ptrdiff_t> g_type_counts_offset{0};

#if PY_VERSION_HEX >= 0x030d0000
int refuse(const char* what, unsigned long long running, unsigned long long built) {
  PyErr_Format(PyExc_ImportError,
               "greenlet was built for another layout of CPython %d.%d: %s is %llu in this "
               "interpreter (%s) and %llu in the one it was built with (%s); reinstall greenlet "
               "from source (pip install --no-binary greenlet greenlet)",
               PY_MAJOR_VERSION, PY_MINOR_VERSION, what, running, Py_GetVersion(), built,
               PY_VERSION);
  return -1;
}
#endif

#ifdef Py_GIL_DISABLED
using TypeCounts = decltype(_PyThreadStateImpl::refcounts);

// The calling thread's count of references to `type`, if the memory at `offset` of its thread state
// looks like its table of such counts; otherwise null.
const Py_ssize_t* type_count(PyTypeObject* type, std::ptrdiff_t offset) noexcept {
  constexpr Py_ssize_t kMostTypes = 1 << 24;  // a larger table is none
  const auto* counts = reinterpret_cast<const TypeCounts*>(
      reinterpret_cast<const char*>(PyThreadState_GetUnchecked()) + offset);
  static_assert(_Py_INVALID_UNIQUE_ID == 0, "the first type is counted at index 0");
  const Py_ssize_t index = reinterpret_cast<PyHeapTypeObject*>(type)->unique_id - 1;
  if (index < 0 || !platform::is_readable(&counts->values) ||
      !platform::is_readable(&counts->is_finalized) || counts->is_finalized != 0 ||
      index >= counts->size || counts->size > kMostTypes || counts->values == nullptr ||
      reinterpret_cast<std::uintptr_t>(counts->values) % alignof(Py_ssize_t) != 0) {
    return nullptr;
  }
  const Py_ssize_t* const count = counts->values + index;
  return platform::is_readable(count) ? count : nullptr;
}

// Offsets at which the table may be.
class CandidateCounts {
 public:
  void add(PyTypeObject* type, std::ptrdiff_t offset) noexcept {
    if (const Py_ssize_t* const count = type_count(type, offset);
        count != nullptr && size_ < kMost) {
      candidates_[size_++] = {offset, count, *count};
    }
  }
  // Keeps those whose count has grown by `more` since they were added.
  void keep(Py_ssize_t more) noexcept {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      if (*candidates_[i].count == candidates_[i].at_first + more) {
        candidates_[kept++] = candidates_[i];
      }
    }
    size_ = kept;
  }
  // The offset that is left; 0 if none is left, or several.
  std::ptrdiff_t only() const noexcept { return size_ == 1 ? candidates_[0].offset : 0; }

 private:
  struct Candidate {
    std::ptrdiff_t offset;
    const Py_ssize_t* count;
    Py_ssize_t at_first;
  };
  static constexpr std::size_t kMost = 64;
  std::array<Candidate, kMost> candidates_;
  std::size_t size_ = 0;
};

// Drops candidates that do not count objects of `type`. -1 with MemoryError.
int narrow(CandidateCounts& candidates, PyTypeObject* type) noexcept {
  // An allocation counts in the table. Freeing these objects does not, until drop_type() knows the
  // table. Nothing else in a thread state behaves so, in particular none of mimalloc's figures.
  PyObject* const first = PyType_GenericAlloc(type, 0);
  candidates.keep(1);
  PyObject* const second = PyType_GenericAlloc(type, 0);
  candidates.keep(2);
  const bool failed = first == nullptr || second == nullptr;
  Py_XDECREF(first);
  Py_XDECREF(second);
  candidates.keep(2);
  return failed ? -1 : 0;
}
#endif

}  // namespace

int check_layout() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  // Within a series CPython only appends fields to these structures, so the fields up to exc_state
  // are where they were. The sizes and offsets that the interpreter tells of itself show whether
  // that holds here.
  const auto& offsets = _PyRuntime.debug_offsets;
  struct Check {
    const char* what;
    std::uint64_t running;
    std::uint64_t built;
  };
  const Check checks[] = {
      {"the offset of PyThreadState.current_frame", offsets.thread_state.current_frame,
       offsetof(PyThreadState, current_frame)},
      {"the offset of PyThreadState.datastack_chunk", offsets.thread_state.datastack_chunk,
       offsetof(PyThreadState, datastack_chunk)},
      {"the offset of PyThreadState.thread_id", offsets.thread_state.thread_id,
       offsetof(PyThreadState, thread_id)},
      {"the size of an interpreter frame", offsets.interpreter_frame.size,
       sizeof(_PyInterpreterFrame)},
      {"the offset of an interpreter frame's previous frame", offsets.interpreter_frame.previous,
       offsetof(_PyInterpreterFrame, previous)},
      {"the offset of an interpreter frame's local variables", offsets.interpreter_frame.localsplus,
       offsetof(_PyInterpreterFrame, localsplus)},
      {"the offset of an interpreter frame's owner", offsets.interpreter_frame.owner,
       offsetof(_PyInterpreterFrame, owner)},
#if PY_VERSION_HEX >= 0x030e0000
      {"the offset of an interpreter frame's stack pointer", offsets.interpreter_frame.stackpointer,
       offsetof(_PyInterpreterFrame, stackpointer)},
#endif
#if PY_VERSION_HEX >= 0x030f0000
      {"the offset of PyThreadState.base_frame", offsets.thread_state.base_frame,
       offsetof(PyThreadState, base_frame)},
      {"the offset of PyThreadState.exc_state", offsets.thread_state.exc_state,
       offsetof(PyThreadState, exc_state)},
#endif
  };
  for (const Check& check : checks) {
    if (check.running != check.built) {
      return refuse(check.what, check.running, check.built);
    }
  }
  const auto shift = static_cast<std::ptrdiff_t>(offsets.thread_state.size) -
                     static_cast<std::ptrdiff_t>(sizeof(PyThreadState));
  if (shift % static_cast<std::ptrdiff_t>(alignof(void*)) != 0 ||
      offsets.thread_state.size < offsetof(PyThreadState, exc_state)) {
    return refuse("the size of PyThreadState", offsets.thread_state.size, sizeof(PyThreadState));
  }
  g_thread_state_shift.store(shift, std::memory_order_relaxed);
  return 0;
#else
  const char* misplaced = nullptr;
  if (find_misplaced_field(misplaced) < 0) {
    return -1;
  }
  if (misplaced != nullptr) {
    PyErr_Format(
        PyExc_ImportError,
        "greenlet was built for another layout of CPython %d.%d: %s is not where it was in "
        "the one it was built with (%s), in this interpreter (%s); reinstall greenlet from "
        "source (pip install --no-binary greenlet greenlet)",
        PY_MAJOR_VERSION, PY_MINOR_VERSION, misplaced, PY_VERSION, Py_GetVersion());
    return -1;
  }
  return 0;
#endif
}

std::ptrdiff_t thread_state_shift() noexcept {
  return g_thread_state_shift.load(std::memory_order_relaxed);
}

int find_type_counts([[maybe_unused]] PyTypeObject* type) noexcept {
#ifdef Py_GIL_DISABLED
  if (type_counts_offset() != 0) {
    return 0;  // found by another interpreter of the process
  }
  // Makes the thread's table long enough for the type.
  PyObject* const first = PyType_GenericAlloc(type, 0);
  if (first == nullptr) {
    return -1;
  }
  Py_DECREF(first);
  constexpr std::ptrdiff_t kExpected = offsetof(_PyThreadStateImpl, refcounts);
  const std::ptrdiff_t expected = kExpected + thread_state_shift();
  CandidateCounts candidates;
  candidates.add(type, expected);
  if (narrow(candidates, type) < 0) {
    return -1;
  }
  if (candidates.only() == 0) {
    // The structures before the table (mimalloc's) may grow in patch releases, and nothing tells
    // their sizes.
    constexpr std::ptrdiff_t kMostGrowth = 16 << 10;
    constexpr std::ptrdiff_t kStep = alignof(TypeCounts);
    for (std::ptrdiff_t growth = kStep - kMostGrowth; growth < kMostGrowth; growth += kStep) {
      if (expected + growth > 0) {
        candidates.add(type, expected + growth);
      }
    }
    if (narrow(candidates, type) < 0) {
      return -1;
    }
  }
  if (candidates.only() != 0) {
    g_type_counts_offset.store(candidates.only(), std::memory_order_relaxed);
  }
#endif
  return 0;
}

std::ptrdiff_t type_counts_offset() noexcept {
  return g_type_counts_offset.load(std::memory_order_relaxed);
}

ImplFields ImplFields::of([[maybe_unused]] PyThreadState* tstate) noexcept {
  ImplFields fields;
#if PY_VERSION_HEX >= 0x030e0000
  auto* const moved =
      reinterpret_cast<_PyThreadStateImpl*>(reinterpret_cast<char*>(tstate) + thread_state_shift());
  static_assert(
      sizeof(StackLimits) == 3 * sizeof(std::uintptr_t) &&
          offsetof(_PyThreadStateImpl, c_stack_soft_limit) ==
              offsetof(_PyThreadStateImpl, c_stack_top) + offsetof(StackLimits, soft_limit) &&
          offsetof(_PyThreadStateImpl, c_stack_hard_limit) ==
              offsetof(_PyThreadStateImpl, c_stack_top) + offsetof(StackLimits, hard_limit),
      "StackLimits mirrors three consecutive fields of _PyThreadStateImpl");
  fields.stack_limits = reinterpret_cast<StackLimits*>(&moved->c_stack_top);
#ifdef Py_GIL_DISABLED
  fields.c_stack_refs = reinterpret_cast<void**>(&moved->c_stack_refs);
#endif
#endif
#if PY_VERSION_HEX >= 0x030f0000
  fields.base_frame = tstate->base_frame;
#endif
  return fields;
}

StackLimits StackLimits::of_stack([[maybe_unused]] const void* low,
                                  [[maybe_unused]] const void* high) noexcept {
  StackLimits limits;
#if PY_VERSION_HEX >= 0x030e0000
  auto base = reinterpret_cast<std::uintptr_t>(low);
  limits.top = reinterpret_cast<std::uintptr_t>(high);
#ifdef _Py_THREAD_SANITIZER
  // As CPython does: ThreadSanitizer crashes if more than half of a stack is used.
  base += (limits.top - base) / 2;
#endif
  limits.hard_limit = base + _PyOS_STACK_MARGIN_BYTES;
  limits.soft_limit = base + 2 * _PyOS_STACK_MARGIN_BYTES;
#endif
  return limits;
}

}  // namespace greenlet::cpython
