// Reference counts and allocation, by functions and fields of internal headers.
#include "cpython/objects.h"

#include <cstdint>
#include <optional>

#include "cpython/internals.h"
#include "cpython/layout.h"
#include "cpython/locks.h"
#include "cpython/require.h"

namespace greenlet::cpython {

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
  // A type without an id (_Py_INVALID_UNIQUE_ID, 0) gets an index that is out of range.
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

bool finalize_in_dealloc(PyObject* object, void (*finalize)(PyObject*)) noexcept {
#if PY_VERSION_HEX >= 0x030e0000  // and late releases of 3.13
  _PyObject_ResurrectStart(object);
  finalize(object);
  return _PyObject_ResurrectEnd(object) != 0;
#else
  // As PyObject_CallFinalizerFromDealloc().
  Py_SET_REFCNT(object, 1);
  finalize(object);
  const Py_ssize_t left = Py_REFCNT(object) - 1;
  Py_SET_REFCNT(object, left);
  return left != 0;
#endif
}

bool is_being_deallocated(PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
  // Not Py_REFCNT(): the sum of the counts is also zero while the object waits in its thread's
  // queue for them to be merged, and only the merge decides whether it goes (Python/brc.c).
  const Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared);
  return _Py_atomic_load_uint32_relaxed(&object->ob_ref_local) == 0 &&
         (shared == 0 || shared == _Py_REF_MERGED);
#else
  return Py_REFCNT(object) == 0;
#endif
}

void unbias([[maybe_unused]] PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
  // As _Py_ExplicitMergeRefcount(), which is not exported. Only the owning thread writes the local
  // count, so another thread stops the world.
  require(!_Py_IsImmortal(object), "greenlet: an immortal object cannot be counted");
  if (_Py_REF_IS_MERGED(_Py_atomic_load_ssize_relaxed(&object->ob_ref_shared))) {
    return;
  }
  std::optional<StoppedWorld> stopped;
  if (!_Py_IsOwnedByCurrentThread(object)) {
    stopped.emplace();
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

}  // namespace greenlet::cpython
