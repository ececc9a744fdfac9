// Allocation and reference counts of objects, where CPython's way differs by version.
#pragma once

#include <Python.h>

#include <cstddef>

namespace greenlet::cpython {

// 3.11 knows no objects with room behind them.
#if PY_VERSION_HEX >= 0x030c0000
inline constexpr bool kAllocatesWithRoom = true;
#else
inline constexpr bool kAllocatesWithRoom = false;
#endif
// A new object of `type`, a garbage-collected one of fixed size, with `room` zeroed bytes behind it
// that go when it does. Not tracked yet. Null with MemoryError. Only if kAllocatesWithRoom.
PyObject* allocate_with_room(PyTypeObject* type, std::size_t room) noexcept;

// Drops the reference to its heap type of an object that has been freed. Allocation counts these
// for each thread on free-threaded builds; Py_DECREF() would make all threads write to one place,
// and _Py_DECREF_TYPE() is for CPython alone.
void drop_type(PyTypeObject* type) noexcept;

// Runs `revive` on an object whose count has dropped to zero, from its tp_dealloc, with a count of
// one. True if someone took a reference meanwhile: the object lives and must not be deallocated.
bool revive_for(PyObject* object, void (*revive)(PyObject*)) noexcept;

// True if the object's last reference is gone: a thread is about to deallocate it. For pointers
// that own no reference, while the world is stopped.
bool is_being_deallocated(PyObject* object) noexcept;

// From now on, whichever thread drops the object's last reference deallocates it, there and then.
// Not for garbage that is being collected. Free-threaded builds bias the count to a thread
// otherwise, for which the object then waits; and not surely to the one that made it: a collection
// gives objects to the threads from whose heaps their memory is (gc_restore_tid() of
// Python/gc_free_threading.c), which free lists forget.
void unbias(PyObject* object) noexcept;

}  // namespace greenlet::cpython
