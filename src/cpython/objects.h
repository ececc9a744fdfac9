// Object life cycle and locking where CPython's way to do it differs by version.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace greenlet::cpython {

// The exception that is set, normalized, with its traceback in it, and cleared; null if none.
// (PyErr_GetRaisedException() of 3.12+.)
PyObject* take_exception() noexcept;
// Sets it again; takes the reference. (PyErr_SetRaisedException() of 3.12+.)
void raise_exception(PyObject* exception) noexcept;

// Puts the exception that is set aside, as it is, and sets it again at its end, unless another is
// set then. For what may be called with one set, and must tell errors of its own from it.
class ExceptionAside {
 public:
  ExceptionAside() noexcept;
  ~ExceptionAside();
  ExceptionAside(const ExceptionAside&) = delete;
  ExceptionAside& operator=(const ExceptionAside&) = delete;

 private:
#if PY_VERSION_HEX < 0x030c0000
  PyObject* type_ = nullptr;
  PyObject* traceback_ = nullptr;
#endif
  PyObject* value_ = nullptr;
};

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

// True if the object's last reference is gone: a thread is about to deallocate it. For pointers
// that own no reference, while the world is stopped.
bool is_being_deallocated(PyObject* object) noexcept;

// In a finalizer: true if it is called because the last reference has gone, not by a collection. (A
// collection of garbage that has come apart meanwhile may count as the former under a GIL.)
bool is_finalized_for_deallocation(PyObject* object) noexcept;

// From now on, whichever thread drops the object's last reference deallocates it, there and then.
// Not for garbage that is being collected. Free-threaded builds bias the count to a thread
// otherwise, for which the object then waits; and not surely to the one that made it: a collection
// gives objects to the threads from whose heaps their memory is (gc_restore_tid() of
// Python/gc_free_threading.c), which free lists forget.
void unbias(PyObject* object) noexcept;

// False once the interpreter is so far into its finalization that running Python code is unwise.
bool can_run_python(PyThreadState* tstate) noexcept;

// Another thread state of this interpreter and this OS thread that runs nothing at the moment and
// is older than `before` (see id_of()): the latest such. Null if there is none, and before 3.12,
// where PyGILState_Ensure() would not learn of a change to it.
PyThreadState* idle_thread_state(PyThreadState* current, std::uint64_t before) noexcept;
// True if the interpreter may be ended from another thread state of the OS thread than `current`:
// as there is one already, or it is not the main interpreter.
bool may_be_left_behind(PyThreadState* current) noexcept;

// True from the moment Py_Finalize() has run the atexit functions (sys.is_finalizing()).
inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// While one of these lives, no other thread of the interpreter runs Python (free-threaded builds;
// elsewhere the GIL sees to that). For looking at what belongs to another thread, which changes it
// without a lock. Nothing that waits or runs Python code may happen meanwhile.
class StoppedWorld {
 public:
  StoppedWorld() noexcept;
  ~StoppedWorld();
  StoppedWorld(const StoppedWorld&) = delete;
  StoppedWorld& operator=(const StoppedWorld&) = delete;
};

// Holds an object's own lock on free-threaded builds; nothing elsewhere, where the GIL does.
class ObjectLock {
 public:
  explicit ObjectLock([[maybe_unused]] PyObject* object) noexcept {
#ifdef Py_GIL_DISABLED
    PyCriticalSection_Begin(&section_, object);
#endif
  }
  ~ObjectLock() {
#ifdef Py_GIL_DISABLED
    PyCriticalSection_End(&section_);
#endif
  }
  ObjectLock(const ObjectLock&) = delete;
  ObjectLock& operator=(const ObjectLock&) = delete;

 private:
#ifdef Py_GIL_DISABLED
  PyCriticalSection section_;
#endif
};

}  // namespace greenlet::cpython
