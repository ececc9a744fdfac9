// An object's own lock, and stopped worlds: what free-threaded builds need where others have the
// GIL.
#pragma once

#include <Python.h>

namespace greenlet::cpython {

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
