// The array of held references. Empty in builds with a GIL.
#include "cpython/held_references.h"

#ifdef Py_GIL_DISABLED

#include <algorithm>
#include <utility>

namespace greenlet::cpython {

void HeldReferences::add(PyObject* object) noexcept {
  if (object == nullptr || std::find(objects_, objects_ + count_, object) != objects_ + count_) {
    return;
  }
  Py_INCREF(object);
  if (count_ == capacity_) {
    constexpr std::uint32_t kFirstCapacity = 16;
    const std::uint32_t capacity = capacity_ == 0 ? kFirstCapacity : capacity_ * 2;
    auto* const grown =
        static_cast<PyObject**>(PyMem_RawRealloc(objects_, capacity * sizeof(PyObject*)));
    if (grown == nullptr) {
      return;  // the object stays counted for ever
    }
    objects_ = grown;
    capacity_ = capacity;
  }
  objects_[count_++] = object;
}

int HeldReferences::traverse(visitproc visit, void* arg) const noexcept {
  for (std::uint32_t i = 0; i < count_; ++i) {
    Py_VISIT(objects_[i]);
  }
  return 0;
}

void HeldReferences::release_all() noexcept {
  PyObject** const objects = std::exchange(objects_, nullptr);
  const std::uint32_t count = std::exchange(count_, 0);
  capacity_ = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    Py_DECREF(objects[i]);
  }
  PyMem_RawFree(objects);
}

}  // namespace greenlet::cpython

#endif
