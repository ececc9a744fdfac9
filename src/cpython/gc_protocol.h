// CPython's garbage collector, seen from an object that it visits: its passes, the FINALIZED bit,
// and counts that it is to take for used. It also says whether a collection is under way.
#pragma once

#include <Python.h>

#include <cstdint>

namespace greenlet::cpython {

// While one of these lives, no allocation of this thread calls finalizers, or other Python code: on
// 3.11 one may collect at once. Later versions leave that to the interpreter's loop.
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

// Clears CPython's FINALIZED bit, so that tp_finalize may run again (normally it runs once).
void allow_finalizer_again(PyObject* object) noexcept;

// True from the moment a collection has found `object` to be garbage until the collection looks a
// second time, after its finalizers have run. In between other threads run; on free-threaded builds
// the collection has turned off deferred reference counting for what it has found.
bool is_being_collected(PyObject* object) noexcept;

// In a pass that recounts: true if only the collection itself refers to the object. It drops that
// reference later without a look at what is left (gc_free_threading.c, handle_resurrected_objects).
bool only_collection_refers_to(PyObject* object) noexcept;

// True while a collection of the calling thread's interpreter is under way, in whatever thread.
bool is_collecting() noexcept;

// Waits until none is, detached; false if one still is after so many milliseconds.
bool wait_for_collection(int milliseconds) noexcept;

// What a traversal of an object is for. A collection counts which references to objects come from
// other objects, to find garbage; and once more, among that, when its finalizers have run, to find
// what they have brought back.
enum class Pass : std::uint8_t { kCounts, kRecounts, kOther };
// To be asked in each traversal of an object whose type has a tp_finalize. Under a GIL both look
// the same, and this goes by whether that has been called. So nothing may take that back between
// the two; and where it was not this collection that called it, the object outlives one more. On
// free-threaded builds a traversal by other code with a null argument, of an object that a
// collection has found to be garbage and is finalizing, would pass for a recount.
Pass pass_of(PyObject* object, visitproc visit, const void* arg) noexcept;

// For the traversal in a pass that recounts: as if there were one reference more to the object, and
// so the collection leaves alone both it and all that it refers to.
void count_as_used(PyObject* object) noexcept;

// In a finalizer: true if it is called because the last reference has gone, not by a collection. (A
// collection of garbage that has come apart meanwhile may count as the former under a GIL.)
bool is_finalized_for_deallocation(PyObject* object) noexcept;

}  // namespace greenlet::cpython
