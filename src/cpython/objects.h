// Allocation, deallocation and reference counts of objects, where CPython differs by version.
#pragma once

#include <Python.h>

#include <cstddef>

namespace greenlet::cpython {

// 3.11 cannot allocate objects with extra room.
#if PY_VERSION_HEX >= 0x030c0000
inline constexpr bool kAllocatesWithRoom = true;
#else
inline constexpr bool kAllocatesWithRoom = false;
#endif
// A new object of `type`, which must be garbage-collected and of fixed size, with `room` zeroed
// bytes behind it that are freed together with it. Not tracked yet. Null with MemoryError. Only if
// kAllocatesWithRoom.
PyObject* allocate_with_room(PyTypeObject* type, std::size_t room) noexcept;

// Drops the reference to its heap type that an object had which has been freed. On free-threaded
// builds each thread counts these references in a table of its own (see find_type_counts()).
// Py_DECREF() would make all threads write to one place, and _Py_DECREF_TYPE() is for CPython
// alone.
void drop_type(PyTypeObject* type) noexcept;

// For tp_dealloc: runs `revive` on the object, whose count has dropped to zero, with a count of
// one. True if `revive` has left a reference: then the object lives and must not be deallocated.
bool revive_for(PyObject* object, void (*revive)(PyObject*)) noexcept;

// True if the object's last reference is gone, so that a thread is about to deallocate it. For
// pointers that own no reference, while the world is stopped.
bool is_being_deallocated(PyObject* object) noexcept;

// Turns off biased reference counting for this object: the thread that drops the last reference
// deallocates it at once. Not for garbage that is being collected.
//
// Free-threaded builds bias the count to one thread, and the object then waits for that thread.
// This need not be the thread that made the object: a collection gives an object to the thread from
// whose heap its memory is (gc_restore_tid() of Python/gc_free_threading.c), and memory from a free
// list may be from another thread's heap.
void unbias(PyObject* object) noexcept;

}  // namespace greenlet::cpython
