// The protocol between CPython's garbage collector and an object that it visits: which pass a visit
// belongs to, the FINALIZED bit, and how an object says that it is in use. Also whether a
// collection is under way.
#pragma once

#include <Python.h>

#include <cstdint>

namespace greenlet::cpython {

// --- passes ---------------------------------------------------------------------------------

// What a visit of an object is for. To find garbage, a collection counts which references to
// objects come from other objects (kCounts). When the finalizers of its garbage have run, it counts
// the references among that garbage once more, to find what came back to life (kRecounts).
enum class Pass : std::uint8_t { kCounts, kRecounts, kDoesNotCount };

// Returns the pass of a visit. Call it once in each traversal of an object whose type has a
// tp_finalize.
//
// Under a GIL both counting passes look the same, so the FINALIZED bit decides: once tp_finalize
// has been called, a counting pass is taken for a recount. So nothing may clear the bit between the
// two passes. If an earlier collection has set it, the first count is taken for a recount, and the
// object outlives that collection. On free-threaded builds, a traversal by other code is taken for
// a recount if its argument is null and the object is garbage that a collection is finalizing.
Pass pass_of(PyObject* object, visitproc visit, const void* arg) noexcept;

#ifdef Py_GIL_DISABLED
// True in the passes that subtract references from counts: visit_decref() and
// visit_decref_unreachable() of gc_free_threading.c. No other pass has a null argument.
inline bool subtracts_counts(const void* arg) noexcept { return arg == nullptr; }
#endif

// In a pass that recounts: counts one more reference to the object, as if something used it. So the
// collection leaves the object alone, and everything that it refers to.
void count_as_used(PyObject* object) noexcept;

// In a pass that recounts: true if only the collection itself refers to the object. It drops that
// reference later and does not look at the object again (handle_resurrected_objects() of
// gc_free_threading.c).
bool only_collection_refers_to(PyObject* object) noexcept;

// --- finalizers -----------------------------------------------------------------------------

// Sets CPython's FINALIZED bit, so that tp_finalize is not called.
void mark_finalized(PyObject* object) noexcept;
// Clears the bit, so that tp_finalize may be called again (normally it is called once).
void allow_finalizer_again(PyObject* object) noexcept;

// In a finalizer: true if it is called because the last reference has gone, and not by a
// collection. (Under a GIL a collection may look like the former, if the finalizers of its garbage
// have dropped references among that garbage.)
bool is_finalized_for_deallocation(PyObject* object) noexcept;

// --- collections ----------------------------------------------------------------------------

// True from the moment a collection has found `object` to be garbage until the collection looks a
// second time, after its finalizers have run. In between other threads run. On free-threaded builds
// the collection has turned off deferred reference counting for its garbage. Also true for every
// object that a collection counts, during the count; then no other thread runs.
bool is_being_collected(PyObject* object) noexcept;

// True while a collection of the calling thread's interpreter is under way, in whatever thread.
bool is_collecting() noexcept;

// Waits, detached, until no collection is under way. False if one still is after `milliseconds`.
bool wait_for_collection(int milliseconds) noexcept;

// While one of these lives, no allocation of this thread runs finalizers or other Python code. On
// 3.11 an allocation may collect at once. Later versions leave that to the interpreter's loop.
class NoCollection {
 public:
#if PY_VERSION_HEX >= 0x030c0000
  NoCollection() = default;
  ~NoCollection() {}
#else
  NoCollection() noexcept : was_enabled_(PyGC_Disable() != 0) {}
  ~NoCollection() {
    if (was_enabled_) {
      PyGC_Enable();
    }
  }
#endif
  NoCollection(const NoCollection&) = delete;
  NoCollection& operator=(const NoCollection&) = delete;

#if PY_VERSION_HEX < 0x030c0000
 private:
  bool was_enabled_;
#endif
};

}  // namespace greenlet::cpython
