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

// An object of a heap type owns a reference to the type. Call this when such an object has been
// freed: it drops that reference. On free-threaded builds each thread counts these references in a
// table of its own (see find_type_counts()).
// Py_DECREF() would make all threads write to one place, and _Py_DECREF_TYPE() is for CPython
// alone.
void drop_type(PyTypeObject* type) noexcept;

// For tp_dealloc, whose object has a reference count of zero: calls `finalize` with the object
// while its count is one. True if `finalize` has left a reference: then the object lives and must
// not be deallocated.
bool finalize_in_dealloc(PyObject* object, void (*finalize)(PyObject*)) noexcept;

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
