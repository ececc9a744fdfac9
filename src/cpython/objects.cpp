#include "cpython/objects.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>

#include "cpython/internals.h"
#include "cpython/layout.h"
#include "cpython/require.h"

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

ExceptionAside::ExceptionAside() noexcept {
#if PY_VERSION_HEX >= 0x030c0000
  value_ = PyErr_GetRaisedException();
#else
  PyErr_Fetch(&type_, &value_, &traceback_);
#endif
}

ExceptionAside::~ExceptionAside() {
#if PY_VERSION_HEX >= 0x030c0000
  if (PyErr_Occurred() == nullptr) {
    PyErr_SetRaisedException(value_);
    return;
  }
#else
  if (PyErr_Occurred() == nullptr) {
    PyErr_Restore(type_, value_, traceback_);
    return;
  }
  Py_XDECREF(type_);
  Py_XDECREF(traceback_);
#endif
  Py_XDECREF(value_);
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
  require(!_Py_IsImmortal(object), "greenlet: an immortal object cannot be counted");
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
