// The slow paths of finding a Thread, and its life from attach() to end().
#include "core/thread_registry.h"

#include <new>
#include <utility>

#include "core/thread_end.h"
#include "core/timeline.h"
#include "cpython/errors.h"
#include "cpython/objects.h"
#include "cpython/thread_states.h"
#include "platform/memory.h"

namespace greenlet::core {
namespace {

constexpr const char* kCapsuleName = "greenlet._greenlet.Thread";

}  // namespace

constinit thread_local OsThread os_thread;
constinit FreeList<Thread, &Thread::next_unused_> ThreadRegistry::unused_;
constinit std::atomic<Thread*> ThreadRegistry::made_{nullptr};

Thread* ThreadRegistry::current_or_null() noexcept {
  PyThreadState* const tstate = cpython::current_thread_state();
  if (tstate == nullptr) {
    return nullptr;
  }
  if (os_thread.thread != nullptr && os_thread.thread->is_of(tstate)) {
    return os_thread.thread;
  }
  return find_slowly(tstate);
}

Thread* ThreadRegistry::find_slowly(PyThreadState* tstate) noexcept {
  if (os_thread.thread_without_exceptions != nullptr &&
      os_thread.thread_without_exceptions->is_of(tstate)) {
    Thread* const thread = os_thread.thread_without_exceptions;
    remember(*thread);
    return thread;
  }
  // The OS thread has another thread state than at the last use: PyGILState_Ensure() in a thread
  // that Python did not make, or another interpreter.
  if (os_thread.ending != nullptr && os_thread.ending->is_of(tstate)) {
    remember(*os_thread.ending);
    return os_thread.ending;
  }
  if (has_ended(tstate)) {
    return nullptr;  // a look into its dict would make a new dict
  }
  const cpython::ExceptionAside aside;
  Thread* const thread = find_in_dict();
  if (thread == nullptr) {
    PyErr_Clear();
  }
  return thread;
}

Thread* ThreadRegistry::find_in_dict() noexcept {
  PyObject* const dict = PyThreadState_GetDict();
  const Ref name = Ref::take(dict != nullptr ? PyUnicode_FromString(kCapsuleName) : nullptr);
  PyObject* const capsule = name ? PyDict_GetItemWithError(dict, name.get()) : nullptr;
  if (capsule == nullptr) {
    return nullptr;
  }
  auto* const thread = static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  remember(*thread);
  return thread;
}

void ThreadRegistry::remember(Thread& thread) noexcept {
  if (!thread.started_.is_empty()) {
    os_thread.find_exceptions();  // another OS thread has started them
  }
  (os_thread.exceptions != nullptr ? os_thread.thread : os_thread.thread_without_exceptions) =
      &thread;
  if (thread.runs_main()) {
    cpython::correct_stack_limits(thread.tstate_, thread.impl_fields_);
  }
}

bool ThreadRegistry::has_ended(PyThreadState* tstate) noexcept {
  const OsThread::Ended& ended = os_thread.ended;
  if (ended.tstate_id != PyThreadState_GetID(tstate) ||
      ended.interpreter_id != PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate))) {
    return false;
  }
  const ModuleState* const module = ModuleState::of_interpreter_or_null();
  return module == nullptr || module->serial == ended.module_serial;
}

bool ThreadRegistry::find_stack(cpython::StackBounds& found) noexcept {
  if (os_thread.exceptions == nullptr) {
    return false;  // there was no switch in this OS thread yet
  }
  const stack::Region region = stack::region_at(__builtin_frame_address(0));
  if (!region) {
    return false;
  }
  found = {.low = region.low, .high = region.boundary};
  return true;
}

Thread* ThreadRegistry::attach() noexcept {
  if (Thread* const known = current_or_null()) {
    return known;
  }
  // Ends the process with a text if there is no thread state.
  PyThreadState* const tstate = PyThreadState_Get();
  // A program may come here with an exception set, to handle it in a greenlet.
  const cpython::ExceptionAside aside;
  if (!cpython::can_run_python(tstate)) {
    PyErr_SetString(PyExc_RuntimeError, "greenlet is being finalized");
    return nullptr;
  }
  if (has_ended(tstate)) {
    PyErr_SetString(PyExc_RuntimeError, "greenlets cannot be used any more: the thread is ending");
    return nullptr;
  }
  ModuleState* const module = ModuleState::of_interpreter();
  if (module == nullptr) {
    return nullptr;
  }
  PyObject* const dict = PyThreadState_GetDict();
  if (dict == nullptr) {
    PyErr_NoMemory();
    return nullptr;
  }
  const Ref main = Greenlet::create(module->greenlet_type, module, nullptr);
  if (!main) {
    return nullptr;
  }
  // On 3.11 the allocations since current_or_null() may have collected, and a finalizer may have
  // made the Thread. Or there was no memory to look for it.
  if (Thread* const made = find_in_dict(); made != nullptr || PyErr_Occurred() != nullptr) {
    return made;
  }
  Thread* const thread = allocate();
  if (thread == nullptr) {
    return nullptr;
  }
  thread->begin(tstate, module, Greenlet::of(main.get()));
  Ref capsule = Ref::take(PyCapsule_New(thread, kCapsuleName, &end_from_capsule));
  if (!capsule) {
    end(*thread, /*in_own_thread=*/true);
    os_thread.ended = {};  // there may be memory the next time
    return nullptr;
  }
  // When CPython clears the thread state, the dict must be deallocated at once, and with it the
  // capsule: not later, and not in another thread. So their reference counts are not biased to a
  // thread. And the dict is untracked, so that no code gets a reference to it from
  // gc.get_objects(). Collections never free it in any case, because they do not see the thread
  // state's reference.
  cpython::unbias(dict);
  cpython::unbias(capsule.get());
  if (PyDict_SetItemString(dict, kCapsuleName, capsule.get()) < 0) {
    capsule = {};  // ends the Thread
    os_thread.ended = {};
    return nullptr;
  }
  PyObject_GC_UnTrack(dict);  // on 3.11 to 3.13 a later insertion may track it again
  const bool is_second =
      os_thread.thread != nullptr || os_thread.thread_without_exceptions != nullptr;
  remember(*thread);
  hook_end_of_run();
  Timeline::note_begin(*thread);
  if (is_second) {
    hook_exit(*module);
  }
  return thread;
}

Thread* ThreadRegistry::allocate() noexcept {
  if (Thread* const unused = unused_.take()) {
    return unused;
  }
  void* const memory = platform::allocate_aligned(alignof(Thread), sizeof(Thread));
  if (memory == nullptr) {
    PyErr_NoMemory();
    return nullptr;
  }
  auto* const made = new (memory) Thread();
  made->next_made_ = made_.load(std::memory_order_relaxed);
  while (!made_.compare_exchange_weak(made->next_made_, made, std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
  return made;
}

void ThreadRegistry::find_those_in_use(const ModuleState& module) noexcept {
  constexpr std::size_t kBuckets = 256;
  Thread* buckets[kBuckets] = {};  // by thread state
  const auto bucket_of = [&](const PyThreadState* tstate) -> Thread*& {
    return buckets[reinterpret_cast<std::uintptr_t>(tstate) / sizeof(PyThreadState) % kBuckets];
  };
  for_each(module, [&](Thread& thread) {
    thread.is_in_use_ = false;
    Thread*& first = bucket_of(thread.tstate_);
    thread.next_in_bucket_ = std::exchange(first, &thread);
  });
  cpython::for_each_thread_state([&](PyThreadState* tstate) {
    for (Thread* each = bucket_of(tstate); each != nullptr; each = each->next_in_bucket_) {
      each->is_in_use_ = each->is_in_use_ || (each->tstate_ == tstate && each->is_of(tstate) &&
                                              each->main_->thread() == each);
    }
  });
}

void ThreadRegistry::end_from_capsule(PyObject* capsule) noexcept {
  auto* const thread = static_cast<Thread*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  // After a fork, and at the end of the interpreter, another thread clears the thread states of the
  // threads that are gone.
  PyThreadState* const tstate = cpython::current_thread_state();
  end(*thread, tstate != nullptr && thread->is_of(tstate));
}

void ThreadRegistry::end(Thread& thread, bool in_own_thread) noexcept {
  // The finally blocks that run now may end other Threads.
  Thread* const outer = std::exchange(os_thread.ending, &thread);
  if (in_own_thread) {
    remember(thread);  // what runs now must not attach a second Thread
  }
  end_greenlets(thread, in_own_thread);
  os_thread.ending = outer;
  thread.owner_tstate_.store(reinterpret_cast<PyThreadState*>(&thread), std::memory_order_relaxed);
  if (in_own_thread) {
    PyThreadState* const tstate = thread.tstate_;
    os_thread.thread = os_thread.thread_without_exceptions = nullptr;
    os_thread.ended = {
        .tstate_id = PyThreadState_GetID(tstate),
        .interpreter_id = PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate)),
        .module_serial = thread.module_->serial};
  }
  Timeline::note_end(thread, in_own_thread);
  const Thread::Owned owned = thread.reset();  // dropped when the memory may be used again
  unused_.put(&thread);
}

}  // namespace greenlet::core
