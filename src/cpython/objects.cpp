#include "cpython/objects.h"

#include <atomic>
#include <cassert>
#include <cstdint>
#include <optional>

#include "cpython/internals.h"
#include "cpython/layout.h"

namespace greenlet::cpython {

PyObject* take_exception() noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  if (type == nullptr) {
    return nullptr;
  }
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) {
    PyException_SetTraceback(value, traceback);
  }
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
#endif
}

void raise_exception(PyObject* exception) noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  PyErr_SetRaisedException(exception);
#else
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(exception))), exception,
                PyException_GetTraceback(exception));
#endif
}

PyObject* allocate_with_room([[maybe_unused]] PyTypeObject* type,
                             [[maybe_unused]] std::size_t room) noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  return PyUnstable_Object_GC_NewWithExtraData(type, room);
#else
  return nullptr;
#endif
}

void drop_type(PyTypeObject* type) noexcept {
#ifdef Py_GIL_DISABLED
  const std::ptrdiff_t offset = type_counts_offset();
  auto* const counts = reinterpret_cast<decltype(_PyThreadStateImpl::refcounts)*>(
      reinterpret_cast<char*>(PyThreadState_GetUnchecked()) + offset);
  // Types without an id of their own (0) count as out of range.
  const auto index =
      static_cast<std::size_t>(reinterpret_cast<PyHeapTypeObject*>(type)->unique_id - 1);
  if (offset != 0 && index < static_cast<std::size_t>(counts->size)) {
#ifdef Py_REF_DEBUG
    _Py_DECREF_DecRefTotal();
#endif
    --counts->values[index];
    return;
  }
#endif
  Py_DECREF(type);
}

bool revive_for(PyObject* object, void (*revive)(PyObject*)) noexcept {
#if PY_VERSION_HEX >= 0x030e0000  // and late releases of 3.13
  _PyObject_ResurrectStart(object);
  revive(object);
  return _PyObject_ResurrectEnd(object) != 0;
#else
  // As PyObject_CallFinalizerFromDealloc().
  Py_SET_REFCNT(object, 1);
  revive(object);
  const Py_ssize_t left = Py_REFCNT(object) - 1;
  Py_SET_REFCNT(object, left);
  return left != 0;
#endif
}

#ifdef Py_GIL_DISABLED

// visit_decref() and visit_decref_unreachable() of gc_free_threading.c, and they alone, are called
// with a null argument. Each object that the second comes to was visited by the first before. So
// whichever is the first of all is visit_decref().
Pass pass_of(PyObject*, visitproc visit, const void* arg) noexcept {
  static constinit std::atomic<visitproc> visit_decref{nullptr};
  if (arg != nullptr) {
    return Pass::kOther;
  }
  visitproc counts = visit_decref.load(std::memory_order_relaxed);
  if (counts == nullptr) {
    counts = visit;
    visit_decref.store(visit, std::memory_order_relaxed);
  }
  return visit == counts ? Pass::kCounts : Pass::kRecounts;
}

// handle_resurrected_objects() of gc_free_threading.c has put what it knows of into the local count
// before the traversal, and makes it zero afterwards.
void count_as_used(PyObject* object) noexcept { ++object->ob_ref_local; }

#else

// subtract_refs() of gc.c (gcmodule.c), which both passes are, has the object itself as argument.
// So has what debug builds do when an object becomes tracked.
Pass pass_of(PyObject* object, visitproc, const void* arg) noexcept {
  if (arg != object || (_Py_AS_GC(object)->_gc_prev & _PyGC_PREV_MASK_COLLECTING) == 0) {
    return Pass::kOther;
  }
  return PyObject_GC_IsFinalized(object) != 0 ? Pass::kRecounts : Pass::kCounts;
}

// Where a list of objects has its links backwards, a collection keeps its counts (gc_set_refs()).
void count_as_used(PyObject* object) noexcept {
  _Py_AS_GC(object)->_gc_prev += std::uintptr_t{1} << _PyGC_PREV_SHIFT;
}

#endif

void allow_finalizer_again(PyObject* object) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  _PyGC_CLEAR_FINALIZED(object);
#else
  _Py_AS_GC(object)->_gc_prev &= ~_PyGC_PREV_MASK_FINALIZED;
#endif
}

bool is_being_deallocated(PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
  // Not Py_REFCNT(): zero in all is also what waits in the queue of the object's thread for its
  // counts to be merged, which decides only then (Python/brc.c).
  const Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared);
  return _Py_atomic_load_uint32_relaxed(&object->ob_ref_local) == 0 &&
         (shared == 0 || shared == _Py_REF_MERGED);
#else
  return Py_REFCNT(object) == 0;
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

void unbias([[maybe_unused]] PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
  // As _Py_ExplicitMergeRefcount(), which is not exported. Only the owner writes the local count.
  assert(!_Py_IsImmortal(object));
  if (_Py_REF_IS_MERGED(_Py_atomic_load_ssize_relaxed(&object->ob_ref_shared))) {
    return;
  }
  std::optional<StoppedWorld> still;
  if (!_Py_IsOwnedByCurrentThread(object)) {
    still.emplace();
  }
  const Py_ssize_t local = _Py_atomic_load_uint32_relaxed(&object->ob_ref_local);
  _Py_atomic_store_uint32_relaxed(&object->ob_ref_local, 0);
  _Py_atomic_store_uintptr_relaxed(&object->ob_tid, 0);
  Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared);
  Py_ssize_t merged = 0;
  do {
    const Py_ssize_t count = Py_ARITHMETIC_RIGHT_SHIFT(Py_ssize_t, shared, _Py_REF_SHARED_SHIFT);
    merged = _Py_REF_SHARED(count + local, _Py_REF_MERGED);
  } while (!_Py_atomic_compare_exchange_ssize(&object->ob_ref_shared, &shared, merged));
#endif
}

StoppedWorld::StoppedWorld() noexcept {
#ifdef Py_GIL_DISABLED
  _PyEval_StopTheWorld(PyInterpreterState_Get());
#endif
}

// NOLINTNEXTLINE(modernize-use-equals-default): the body is empty in some builds only
StoppedWorld::~StoppedWorld() {
#ifdef Py_GIL_DISABLED
  _PyEval_StartTheWorld(PyInterpreterState_Get());
#endif
}

bool can_run_python([[maybe_unused]] PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return _PyInterpreterState_GetFinalizing(tstate->interp) == nullptr;
#elif PY_VERSION_HEX >= 0x030c0000
  return !_Py_IsFinalizing() && _PyInterpreterState_GetFinalizing(tstate->interp) == nullptr;
#else
  return !_Py_IsFinalizing();
#endif
}

#if PY_VERSION_HEX >= 0x030c0000

namespace {

bool runs_nothing(const PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030f0000
  return tstate->current_frame == tstate->base_frame;
#elif PY_VERSION_HEX >= 0x030d0000
  return tstate->current_frame == nullptr;
#else
  return tstate->cframe->current_frame == nullptr;
#endif
}

}  // namespace

bool may_be_left_behind(PyThreadState* current) noexcept {
  if (current->interp != PyInterpreterState_Main()) {
    return true;
  }
  const StoppedWorld still;
  for (PyThreadState* other = PyInterpreterState_ThreadHead(current->interp); other != nullptr;
       other = PyThreadState_Next(other)) {
    if (other != current && other->thread_id == current->thread_id) {
      return true;
    }
  }
  return false;
}

PyThreadState* idle_thread_state(PyThreadState* current, std::uint64_t before) noexcept {
  const StoppedWorld still;
  PyThreadState* latest = nullptr;
  for (PyThreadState* other = PyInterpreterState_ThreadHead(current->interp); other != nullptr;
       other = PyThreadState_Next(other)) {
    if (other != current && other->thread_id == current->thread_id && other->id < before &&
        (latest == nullptr || latest->id < other->id) && runs_nothing(other)) {
      latest = other;
    }
  }
  return latest;
}

#else

bool may_be_left_behind(PyThreadState*) noexcept { return false; }
PyThreadState* idle_thread_state(PyThreadState*, std::uint64_t) noexcept { return nullptr; }

#endif

}  // namespace greenlet::cpython
