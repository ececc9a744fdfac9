// What the extension module owns once per interpreter, and how an interpreter finds it.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

#include "platform/mutex.h"

namespace greenlet::core {

// A C function that is called after each switch, in the target. `origin` and `target` are borrowed;
// `what` is a set of bits. It must not switch, raise, or run Python code.
struct SwitchHook {
  enum What : int { kThrow = 1, kOriginFinished = 2 };
  using Function = void (*)(int what, PyObject* origin, PyObject* target, void* data);
  Function function = nullptr;
  void* data = nullptr;
};

// Where functools.partial objects keep their function. The type is only compared, so it may have
// ended; null if it is not known.
struct PartialField {
  const PyTypeObject* type = nullptr;
  Py_ssize_t offset = 0;
};

class Timeline;

// Lives in the module object that owns it (module/module.cpp makes that object), and as long as the
// object. Each Thread owns a reference to the object, and so does the greenlet type, for all
// greenlets. The fields without a rule of their own are written before the module is registered,
// and only read afterwards.
struct ModuleState {
  PyObject* object = nullptr;  // the module object that owns this, borrowed
  PyTypeObject* greenlet_type = nullptr;
  PyObject* error = nullptr;
  PyObject* greenlet_exit = nullptr;
  // A subclass of GreenletExit and SystemExit. It kills greenlets that a collection has found, and
  // greenlets whose thread ends. Event loops catch whatever a callback raises and go on, except for
  // SystemExit.
  PyObject* final_exit = nullptr;
  // Functions that CPython does not export: tp_dealloc and tp_traverse of all classes made in
  // Python, and tp_finalize of the classes that define __del__.
  destructor subtype_dealloc = nullptr;
  traverseproc subtype_traverse = nullptr;
  destructor slot_tp_finalize = nullptr;
  PyObject* capi = nullptr;      // the capsule greenlet._C_API
  PyObject* run_name = nullptr;  // the interned string "run"
  PyObject* empty_tuple = nullptr;

  // Orders the end of a thread against other threads that look at its greenlets. It guards the
  // DroppedQueue of each Thread, the fields of greenlets that belong to it, and the change of
  // Greenlet::thread_ to null when a thread ends; with it held, a Thread that thread_ points to
  // cannot end. Held for a few instructions, and by abandon_all() for a walk through the greenlets
  // of a thread. While it is held, no Python code runs, no object is allocated (StackState::hold()
  // allocates raw memory), and nothing waits.
  platform::Mutex owners;
  // Orders changes of Greenlet::parent_: two changes at once could close a cycle. A thread that
  // holds it sees chains of parents that do not change. Held for a walk up one chain. The object
  // lock of the changed greenlet is taken before it; no other lock is taken while it is held.
  platform::Mutex parents;

  // Counts for get_total_main_greenlets() and get_pending_cleanup_count(). Atomic: any thread
  // may change them.
  std::atomic<Py_ssize_t> main_greenlets{0};    // threads that have a main greenlet
  std::atomic<Py_ssize_t> queued_greenlets{0};  // greenlets in DroppedQueues

  // What is called after each switch, in all threads; see tracing.h. Changed while the world is
  // stopped.
  PyObject* tracer = nullptr;  // owned: of the threads that have none of their own
  SwitchHook hook;

  // Greenlets that collections have found and ended, and a function that is called with each. The
  // flag says whether there is a function, which is changed while the world is stopped.
  std::atomic<Py_ssize_t> collected_greenlets{0};
  std::atomic<bool> reports_collected{false};
  PyObject* collected_callback = nullptr;  // owned

  // The recording that runs, or null; and how many greenlets recordings have numbered so far (see
  // timeline.h). Changed while the world is stopped.
  Timeline* timeline = nullptr;
  std::uint64_t numbered_greenlets = 0;
  PartialField partial;  // for names; set by the first recording

  // How many frames to note of the code that makes a greenlet (Greenlet::origin()).
  std::atomic<int> origin_frames{0};

  // Not zero once hook_exit() has been called. No byte: on riscv64, gcc 11 and 12 would call
  // libatomic.
  std::atomic<unsigned> is_exit_hooked{0};

  // For get_clocks_used_doing_optional_cleanup(): there is no such work here, so the count is 0.
  std::atomic<bool> counts_cleanup_clocks{true};

  // Tells this state from every other that the process has had or will have.
  std::uint64_t serial = 0;

  // The state in a module object that owns one.
  static ModuleState& of(PyObject* module) noexcept {
    return *static_cast<ModuleState*>(PyModule_GetState(module));
  }
  // The state of the module that the calling thread's interpreter has loaded, borrowed. Null with
  // an exception set if it has loaded none.
  static ModuleState* of_interpreter() noexcept;
  // The same, but null without an exception.
  static ModuleState* of_interpreter_or_null() noexcept;

  // The module object whose state serves the calling thread's interpreter, borrowed. Null without
  // an exception if none is registered; null with an exception set if there is no memory to look.
  // Call it without an exception set.
  static PyObject* registered_module() noexcept;
  // Registers `module`, for as long as the interpreter lives. False with an exception set if there
  // is no memory. One thread at a time.
  static bool register_module(PyObject* module) noexcept;
};

}  // namespace greenlet::core
