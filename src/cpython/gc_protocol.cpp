#include "cpython/gc_protocol.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "cpython/internals.h"

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

// The collection calls visit_decref() and visit_decref_unreachable() of gc_free_threading.c with a
// null argument, on objects that have the UNREACHABLE bit. It merges the counts of its garbage
// before other threads run again (scan_heap_visitor()). So an object that has the bit and counts
// that are not merged is visited by visit_decref(). The main greenlet of a thread is such an object
// as a rule, and a collection has visited all objects with visit_decref() before it visits any with
// the other.
Pass pass_of(PyObject* object, visitproc visit, const void* arg) noexcept {
  static constinit std::atomic<visitproc> visit_decref{nullptr};
  if (arg != nullptr || !is_being_collected(object)) {
    return Pass::kOther;
  }
  if (!_Py_REF_IS_MERGED(_Py_atomic_load_ssize_relaxed(&object->ob_ref_shared))) {
    visit_decref.store(visit, std::memory_order_relaxed);
    return Pass::kCounts;
  }
  const visitproc counts = visit_decref.load(std::memory_order_relaxed);
  return counts == nullptr || visit == counts ? Pass::kCounts : Pass::kRecounts;
}

// handle_resurrected_objects() of gc_free_threading.c has put what it knows of into the local count
// before the traversal, and makes it zero afterwards.
void count_as_used(PyObject* object) noexcept { ++object->ob_ref_local; }

#else

// Set while a collection counts; for its garbage, until it recounts (handle_resurrected_objects()).
bool is_being_collected(PyObject* object) noexcept {
  return (_Py_AS_GC(object)->_gc_prev & _PyGC_PREV_MASK_COLLECTING) != 0;
}

// The collection of a build with a GIL owns no references.
bool only_collection_refers_to(PyObject*) noexcept { return false; }

// subtract_refs() of gc.c (gcmodule.c), which both passes are, has the object itself as argument.
// So has what debug builds do when an object becomes tracked.
Pass pass_of(PyObject* object, visitproc, const void* arg) noexcept {
  if (arg != object || !is_being_collected(object)) {
    return Pass::kOther;
  }
  return PyObject_GC_IsFinalized(object) != 0 ? Pass::kRecounts : Pass::kCounts;
}

// Where a list of objects has its links backwards, a collection keeps its counts (gc_set_refs()).
void count_as_used(PyObject* object) noexcept {
  _Py_AS_GC(object)->_gc_prev += std::uintptr_t{1} << _PyGC_PREV_SHIFT;
}

#endif

bool is_collecting() noexcept {
  PyInterpreterState* const interpreter = PyInterpreterState_Get();
#if PY_VERSION_HEX >= 0x030d0000
  // PyInterpreterState moves within a series, so the running interpreter has to tell where.
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
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Py_END_ALLOW_THREADS
  }
  return true;
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
  // What _PyObject_ResurrectStart() makes of the counts; a collection has merged them.
  return _Py_IsOwnedByCurrentThread(object) &&
         _Py_atomic_load_uint32_relaxed(&object->ob_ref_local) == 1 &&
         _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared) == 0;
#else
  return Py_REFCNT(object) == 1;
#endif
}

}  // namespace greenlet::cpython
