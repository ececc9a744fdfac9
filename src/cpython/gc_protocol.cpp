// How each build's collector marks its garbage, counts, and remembers finalizers: the bits and
// counts of gc.c (gcmodule.c before 3.13) and of gc_free_threading.c.
#include "cpython/gc_protocol.h"

#include <atomic>
#include <cstdint>

#include "cpython/internals.h"
#include "platform/clock.h"

namespace greenlet::cpython {

#ifdef Py_GIL_DISABLED

bool is_being_collected(PyObject* object) noexcept {
  return (_Py_atomic_load_uint8_relaxed(&object->ob_gc_bits) & _PyGC_BITS_UNREACHABLE) != 0;
}

bool only_collection_refers_to(PyObject* object) noexcept {
  const Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared);
  return _Py_REF_IS_MERGED(shared) &&
         Py_ARITHMETIC_RIGHT_SHIFT(Py_ssize_t, shared, _Py_REF_SHARED_SHIFT) == 1;
}

// The counting passes visit objects that have the UNREACHABLE bit: first all of them with
// visit_decref(), and then the garbage among them with visit_decref_unreachable(). The collection
// merges the counts of its garbage before other threads run again (scan_heap_visitor()). So if an
// object has the bit, and its counts are not merged, `visit` is visit_decref(). The main greenlet
// of a thread is usually such an object, so this learns visit_decref() in the first collection.
Pass pass_of(PyObject* object, visitproc visit, const void* arg) noexcept {
  static constinit std::atomic<visitproc> visit_decref{nullptr};
  if (!subtracts_counts(arg) || !is_being_collected(object)) {
    return Pass::kDoesNotCount;
  }
  if (!_Py_REF_IS_MERGED(_Py_atomic_load_ssize_relaxed(&object->ob_ref_shared))) {
    visit_decref.store(visit, std::memory_order_relaxed);
    return Pass::kCounts;
  }
  const visitproc known = visit_decref.load(std::memory_order_relaxed);
  return known == nullptr || visit == known ? Pass::kCounts : Pass::kRecounts;
}

// handle_resurrected_objects() of gc_free_threading.c has put the references that it knows of into
// the local count before the traversal, and makes that count zero afterwards.
void count_as_used(PyObject* object) noexcept { ++object->ob_ref_local; }

#else

// The bit is set while a collection counts, and on its garbage until the collection recounts
// (handle_resurrected_objects()).
bool is_being_collected(PyObject* object) noexcept {
  return (_Py_AS_GC(object)->_gc_prev & _PyGC_PREV_MASK_COLLECTING) != 0;
}

// The collection of a build with a GIL owns no references.
bool only_collection_refers_to(PyObject*) noexcept { return false; }

// Both counting passes are subtract_refs() of gc.c (gcmodule.c), which passes the object itself as
// the argument. So does the check of debug builds when an object becomes tracked; that object does
// not have the bit.
Pass pass_of(PyObject* object, visitproc, const void* arg) noexcept {
  if (arg != object || !is_being_collected(object)) {
    return Pass::kDoesNotCount;
  }
  return PyObject_GC_IsFinalized(object) != 0 ? Pass::kRecounts : Pass::kCounts;
}

// While a collection counts, it keeps the count in the object's link to the previous one
// (gc_set_refs()).
void count_as_used(PyObject* object) noexcept {
  _Py_AS_GC(object)->_gc_prev += std::uintptr_t{1} << _PyGC_PREV_SHIFT;
}

#endif

bool is_collecting() noexcept {
  PyInterpreterState* const interpreter = PyInterpreterState_Get();
#if PY_VERSION_HEX >= 0x030d0000
  // The fields of PyInterpreterState move within a series, so the running interpreter is asked.
  const auto& offsets = _PyRuntime.debug_offsets;
  const std::uint64_t offset = offsets.interpreter_state.gc + offsets.gc.collecting;
  return __atomic_load_n(
             reinterpret_cast<const int*>(reinterpret_cast<const char*>(interpreter) + offset),
             __ATOMIC_RELAXED) != 0;
#else
  return interpreter->gc.collecting != 0;
#endif
}

bool wait_for_collection(int milliseconds) noexcept {
  for (; is_collecting(); --milliseconds) {
    if (milliseconds <= 0) {
      return false;
    }
    Py_BEGIN_ALLOW_THREADS
    platform::pause(1'000'000);
    Py_END_ALLOW_THREADS
  }
  return true;
}

void mark_finalized(PyObject* object) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  _PyGC_SET_FINALIZED(object);
#else
  _PyGCHead_SET_FINALIZED(_Py_AS_GC(object));
#endif
}

void allow_finalizer_again(PyObject* object) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  _PyGC_CLEAR_FINALIZED(object);
#else
  _Py_AS_GC(object)->_gc_prev &= ~_PyGC_PREV_MASK_FINALIZED;
#endif
}

bool is_finalized_for_deallocation(PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
  // These are the counts that _PyObject_ResurrectStart() sets. A collection has merged the counts.
  return _Py_IsOwnedByCurrentThread(object) &&
         _Py_atomic_load_uint32_relaxed(&object->ob_ref_local) == 1 &&
         _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared) == 0;
#else
  return Py_REFCNT(object) == 1;
#endif
}

}  // namespace greenlet::cpython
