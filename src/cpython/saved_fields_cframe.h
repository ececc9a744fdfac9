// The field of a thread state that leads to its frames on 3.11 and 3.12: cframe.
#pragma once

#include <Python.h>

#include <cstddef>
#include <utility>

#include "cpython/gc_protocol.h"
#include "cpython/saved_fields.h"

namespace greenlet::cpython {

// The innermost _PyCFrame. Each entry of the interpreter has one on the C stack, which leads to the
// innermost frame; the stack's own is the outermost. How it is restored depends on the version.
struct CFrameBase {
  _PyCFrame* cframe = nullptr;
  _PyCFrame root = {};

  void start(const NewStack&) noexcept {
    root = {};
    cframe = &root;
  }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { cframe = tstate->cframe; }
  void finish() noexcept { cframe = nullptr; }
  // Only the innermost one is followed from outside.
  void relocate(const Relocation& moved) noexcept {
    cframe = moved(cframe);
    if (cframe != nullptr) {
      cframe->current_frame = moved(cframe->current_frame);
    }
  }

  _PyInterpreterFrame* innermost() const noexcept {
    return cframe != nullptr ? cframe->current_frame : nullptr;
  }
  // Where the pointer to the innermost frame is; it need not be readable.
  const void* place_of_innermost() const noexcept { return place(cframe); }
  static const void* place_of_running(const PyThreadState* tstate) noexcept {
    return place(tstate->cframe);
  }
  // The innermost frame of the stack that a thread runs.
  static _PyInterpreterFrame* running(const PyThreadState* tstate) noexcept {
    return tstate->cframe != nullptr ? tstate->cframe->current_frame : nullptr;
  }
  // A new reference to the innermost complete frame; null without an exception if there is none.
  // CPython makes a frame object only for what a thread state runs. So for one call the calling
  // thread's state seems to run the suspended frames.
  PyFrameObject* innermost_object(PyThreadState* tstate) const noexcept {
    if (cframe == nullptr) {
      return nullptr;
    }
    const NoCollection no_finalizers;  // they would run Python code over these frames
    _PyCFrame* const running = std::exchange(tstate->cframe, cframe);
    PyFrameObject* const object = PyThreadState_GetFrame(tstate);
    tstate->cframe = running;
    return object;
  }

 private:
  static const void* place(const _PyCFrame* cframe) noexcept {
    return cframe == nullptr
               ? nullptr
               : reinterpret_cast<const std::byte*>(cframe) + offsetof(_PyCFrame, current_frame);
  }
};

}  // namespace greenlet::cpython
