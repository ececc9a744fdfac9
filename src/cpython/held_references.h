// Counted references to what a suspended stack refers to without a count (free-threaded builds).
#pragma once

#include <Python.h>

#include <cstdint>

namespace greenlet::cpython {

// Free-threaded builds do not count references from a stack to functions, classes, modules and code
// objects (deferred reference counting). In exchange a collection does not free what it finds on a
// stack. But it turns deferred counting off for garbage that came back to life, and at the end of
// the interpreter for everything. CPython then counts the references that generators and frame
// objects have (disable_deferred_refcounting() of Python/gc_free_threading.c), but not those on
// stacks. So the owner of a stack adds them here.
//
// Owns a reference to each object. Empty in builds with a GIL, which count all references. Touched
// as the StackState that it is part of.
#ifdef Py_GIL_DISABLED
class HeldReferences {
 public:
  // Once for each object; null is ignored.
  void add(PyObject* object) noexcept;
  int traverse(visitproc visit, void* arg) const noexcept;
  // May run any Python code.
  void release() noexcept {
    if (objects_ != nullptr) [[unlikely]] {
      release_all();
    }
  }

  // A request to add what the stack refers to in the next traversal that marks what is alive.
  void request() noexcept { is_requested_ = true; }
  bool is_requested() const noexcept { return is_requested_; }
  void settle_request() noexcept { is_requested_ = false; }

 private:
  void release_all() noexcept;

  std::uint32_t count_ = 0;
  std::uint32_t capacity_ = 0;
  PyObject** objects_ = nullptr;
  bool is_requested_ = false;
};
#else
class HeldReferences {
 public:
  void release() const noexcept {}
  void request() const noexcept {}
};
#endif

}  // namespace greenlet::cpython
