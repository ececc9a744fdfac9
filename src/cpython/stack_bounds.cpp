// The two places where new thread states learn the bounds of their stack: the answer of the C
// library to CPython, and the first frame. 3.14+; empty before.
#include "cpython/stack_bounds.h"

#include "cpython/internals.h"

#if PY_VERSION_HEX >= 0x030e0000

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <internal/pycore_ceval.h>
#ifdef __GLIBC__
#include <pthread.h>
#endif

#include "cpython/impl_fields.h"
#include "cpython/locks.h"
#include "cpython/thread_states.h"
#include "platform/imports.h"
#include "platform/old_glibc.h"

namespace greenlet::cpython {
namespace {

constinit std::atomic<FindStack> g_find{nullptr};

bool find_stack(StackBounds& found) noexcept {
  const FindStack find = g_find.load(std::memory_order_acquire);
  return find != nullptr && find(found);
}

std::uintptr_t stack_pointer() noexcept {
  return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}

// --- the answer of the C library ------------------------------------------------------------
//
// CPython calls pthread_getattr_np(). Like every function of another library, it is called through
// a word that the dynamic linker has filled in. So another function can be put there for CPython
// alone, and not for other libraries. (With musl CPython does not ask and guesses by the stack
// pointer, which is good enough until the first frame; see below.) Where the word cannot be
// changed, only the first frame gives the right bounds.
#ifdef __GLIBC__

using GetAttributes = int (*)(pthread_t, pthread_attr_t*);
constinit std::atomic<platform::Function> g_c_library_get_attributes{nullptr};

int get_attributes(pthread_t thread, pthread_attr_t* attributes) noexcept {
  StackBounds stack;
  if (pthread_equal(thread, pthread_self()) == 0 || !find_stack(stack)) {
    const auto ask_c_library =
        reinterpret_cast<GetAttributes>(g_c_library_get_attributes.load(std::memory_order_acquire));
    return ask_c_library(thread, attributes);
  }
  if (const int failed = pthread_attr_init(attributes); failed != 0) {
    return failed;
  }
  pthread_attr_setguardsize(attributes, 0);  // the guard of the stack lies below `low`
  return pthread_attr_setstack(attributes, const_cast<std::byte*>(stack.low),
                               static_cast<std::size_t>(stack.high - stack.low));
}

void answer_for_the_c_library() noexcept {
  // No byte: on riscv64, gcc 11 and 12 would call libatomic.
  static constinit std::atomic<unsigned> calls{0};
  if (calls.exchange(1, std::memory_order_relaxed) == 0) {
    // CPython has called it for this thread already, so it is bound.
    platform::replace_import(
        reinterpret_cast<const void*>(&_Py_InitializeRecursionLimits), "pthread_getattr_np",
        reinterpret_cast<platform::Function>(&get_attributes), g_c_library_get_attributes);
  }
}

#else
void answer_for_the_c_library() noexcept {}
#endif

// --- the first frame ------------------------------------------------------------------------
//
// When a thread state pushes its first Python frame, it gets memory for frames from the allocator
// of arenas (pystate.c, push_chunk()). Otherwise that allocator is called once for a MiB of
// objects. So a function in its place notices new thread states of any origin at next to no cost. A
// thread state that was attached on a greenlet's stack gets the right bounds there, before Python
// code runs in it.
//
// That is too late for a thread state that runs no Python code but deallocates objects, as at the
// end of an interpreter. So the answer of the C library is replaced as well, as soon as there is an
// interpreter beside the main one, or a thread state that was made in a greenlet. Programs without
// either are left as they are.

using Allocate = void* (*)(void*, std::size_t);
constinit std::atomic<Allocate> g_allocate{nullptr};  // the allocator before ours

void see_first_frame(PyThreadState* tstate) noexcept {
  StackBounds stack;
  const bool in_greenlet = find_stack(stack);
  if (in_greenlet) {
    *ImplFields::of(tstate).stack_limits = StackLimits::of_stack(stack.low, stack.high);
  }
  if (in_greenlet || tstate->interp != PyInterpreterState_Main()) {
    answer_for_the_c_library();
  }
}

void* allocate_arena(void* context, std::size_t bytes) noexcept {
  PyThreadState* const tstate = current_thread_state();
  if (tstate != nullptr && tstate->datastack_chunk == nullptr) {
    see_first_frame(tstate);
  }
  return g_allocate.load(std::memory_order_relaxed)(context, bytes);
}

// Puts our allocator in place, if it is not. When Python is initialized again, it puts back the
// allocator that was there at the start. If the allocator is neither that nor ours, other code has
// put its own before ours, and that calls ours.
void watch_first_frames() noexcept {
  // Threads that allocate at the same time find either function, with the same context.
  const StoppedWorld stopped;
  PyObjectArenaAllocator arenas;
  PyObject_GetArenaAllocator(&arenas);
  const Allocate known = g_allocate.load(std::memory_order_relaxed);
  if (arenas.alloc == &allocate_arena || (known != nullptr && arenas.alloc != known)) {
    return;
  }
  g_allocate.store(arenas.alloc, std::memory_order_relaxed);
  arenas.alloc = &allocate_arena;
  PyObject_SetArenaAllocator(&arenas);
}

}  // namespace

void watch_new_thread_states(FindStack find) noexcept {
  g_find.store(find, std::memory_order_release);
  watch_first_frames();
  // Interpreters that exist already may have pushed their first frames before.
  if (PyInterpreterState_Head() != PyInterpreterState_Main()) {
    answer_for_the_c_library();
  }
}

void correct_stack_limits(PyThreadState* tstate, const ImplFields& impl) noexcept {
  const StackLimits& now = *impl.stack_limits;
  const std::uintptr_t here = stack_pointer();
  if (now.hard_limit <= here && here < now.top) [[likely]] {
    return;
  }
  StackBounds stack;
  if (find_stack(stack)) {
    *impl.stack_limits = StackLimits::of_stack(stack.low, stack.high);
  } else {
    _Py_InitializeRecursionLimits(tstate);
  }
}

}  // namespace greenlet::cpython

#else

namespace greenlet::cpython {

void watch_new_thread_states(FindStack) noexcept {}
void correct_stack_limits(PyThreadState*, const ImplFields&) noexcept {}

}  // namespace greenlet::cpython

#endif
