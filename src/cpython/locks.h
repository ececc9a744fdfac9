// An object's own lock, and stopped worlds: what free-threaded builds use where other builds rely
// on the GIL.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

// While one of these lives, no other thread of the interpreter runs Python. (Does nothing in builds
// with a GIL, because the caller has the GIL.) For reading the data of another thread, which that
// thread changes without a lock. The caller must not wait or run Python code while one lives.
class StoppedWorld {
 public:
  StoppedWorld() noexcept;
  ~StoppedWorld();
  StoppedWorld(const StoppedWorld&) = delete;
  StoppedWorld& operator=(const StoppedWorld&) = delete;
};

// Holds an object's own lock on free-threaded builds (a critical section). Does nothing in builds
// with a GIL.
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
