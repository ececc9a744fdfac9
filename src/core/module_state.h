// What the extension module owns once per interpreter.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

#include "platform/mutex.h"

namespace greenlet::core {

class Thread;

// Made when the extension module is first created, alive as long as the module object that owns it
// (each Thread holds that object, and so does the greenlet type, for all greenlets).
struct ModuleState {
  PyObject* object = nullptr;  // the module object that owns it, borrowed
  PyTypeObject* greenlet_type = nullptr;
  PyObject* error = nullptr;
  PyObject* greenlet_exit = nullptr;
  // A subclass of GreenletExit and SystemExit: what ends greenlets that a collection has found, or
  // whose thread ends. Event loops catch whatever a callback raises and go on, except for
  // SystemExit.
  PyObject* final_exit = nullptr;
  // Functions of CPython's that it does not export: tp_dealloc and tp_traverse of all classes made
  // in Python, and tp_finalize of those that define __del__.
  destructor subtype_dealloc = nullptr;
  traverseproc subtype_traverse = nullptr;
  destructor slot_tp_finalize = nullptr;
  PyObject* capi = nullptr;      // the capsule greenlet._C_API
  PyObject* run_name = nullptr;  // the interned string "run"
  PyObject* empty_tuple = nullptr;

  // Orders a thread's end against other threads that look at its greenlets: guards the owner of
  // every started greenlet, each thread's main greenlet and queue. Held only for a few
  // instructions that neither run Python nor allocate. Free of contention under a GIL.
  platform::Mutex owners;
  // Orders changes of parents, of which two at once could close a circle. Held only for a walk up
  // one chain. Innermost: what holds it takes no other lock.
  platform::Mutex parents;

  std::atomic<Py_ssize_t> main_greenlets{0};     // threads that have one
  std::atomic<Py_ssize_t> pending_greenlets{0};  // queued for their own thread to finish

  // See Thread::watch_exit().
  std::atomic<bool> exit_is_watched{false};

  // For get_clocks_used_doing_optional_cleanup(): there is no such work here, so always 0.
  std::atomic<bool> counts_cleanup_clocks{true};

  // Tells this state from every other that the process has had or will have.
  std::uint64_t serial = 0;

  // The state of the module that the calling thread's interpreter has loaded, borrowed; null with
  // an exception if it has loaded none.
  static ModuleState* of_interpreter() noexcept;
  // The same without an exception.
  static ModuleState* of_interpreter_or_null() noexcept;
};

}  // namespace greenlet::core
