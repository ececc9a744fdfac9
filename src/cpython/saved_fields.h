// How one field of a thread state is started, saved and restored. The headers stack_state_3*.h
// compose what their version keeps per stack from these parts. No preprocessor condition on a
// version is here; a part that only some versions use says so.
//
// save() and restore() are the hot half of a switch: inline, without allocation, and without calls
// of Python. The rest is called more rarely.
#pragma once

#include <Python.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpython/impl_fields.h"
#include "cpython/relocation.h"

namespace greenlet::cpython {

// A stack that is about to run for the first time.
struct NewStack {
  PyThreadState* tstate;  // of the thread that starts it
  const ImplFields& impl;
  const std::byte* low;  // the C stack is [low, data) and grows down
  std::byte* data;       // Python frames lie in [data, data + data_bytes)
  std::size_t data_bytes;
  _PyErr_StackItem* handled;  // the bottom of its chain of handled exceptions
};

// What a version keeps per stack: the list of its fields, in the order in which a switch saves and
// restores them. A field is a struct with the saved value and these functions:
//
//   start(const NewStack&)   sets the value that the stack begins with
//   save(tstate, impl)       copies the field out of the thread state: the stack is left
//   restore(tstate, impl)    copies it into the thread state: the stack is entered
//
// and, if the field needs them:
//
//   finish()                 the stack has ended: forgets what was on it
//   must_catch_up(tstate)    true if the stack that was just entered needs catch_up()
//   catch_up(tstate)         catches up with what changed while the stack was suspended
//   relocate(moved)          rebases what leads into the bytes of the stack, if code of other
//                            stacks follows it (relocation.cpp)
template <typename... Field>
struct Fields : Field... {
  void start(const NewStack& stack) noexcept { (Field::start(stack), ...); }

  [[gnu::always_inline]] void save(PyThreadState* tstate, const ImplFields& impl) noexcept {
    (Field::save(tstate, impl), ...);
  }

  [[gnu::always_inline]] void restore(PyThreadState* tstate, const ImplFields& impl) noexcept {
    (Field::restore(tstate, impl), ...);
  }

  void finish() noexcept { (finish_one<Field>(), ...); }

  [[gnu::always_inline]] bool must_catch_up(PyThreadState* tstate) const noexcept {
    return (0 | ... | int{must_catch_up_one<Field>(tstate)}) != 0;  // without branches
  }

  void catch_up(PyThreadState* tstate) noexcept { (catch_up_one<Field>(tstate), ...); }

  void relocate(const Relocation& moved) noexcept { (relocate_one<Field>(moved), ...); }

 private:
  template <typename One>
  void finish_one() noexcept {
    if constexpr (requires(One& field) { field.finish(); }) {
      One::finish();
    }
  }
  template <typename One>
  [[gnu::always_inline]] bool must_catch_up_one(PyThreadState* tstate) const noexcept {
    if constexpr (requires(const One& field) { field.must_catch_up(tstate); }) {
      return One::must_catch_up(tstate);
    }
    return false;
  }
  template <typename One>
  void catch_up_one(PyThreadState* tstate) noexcept {
    if constexpr (requires(One& field) { field.catch_up(tstate); }) {
      One::catch_up(tstate);
    }
  }
  template <typename One>
  void relocate_one(const Relocation& moved) noexcept {
    if constexpr (requires(One& field) { field.relocate(moved); }) {
      One::relocate(moved);
    }
  }
};

// --- fields of any kind ---------------------------------------------------------------------

template <typename T>
struct TypeOfMember;
template <typename T, typename Owner>
struct TypeOfMember<T Owner::*> {
  using Type = T;
};

// A field that is copied out and in. A new stack begins with zero or null in it.
template <auto Member>
struct Copied {
  // NOLINTNEXTLINE(readability-redundant-typename): clang before 16 needs the keyword
  typename TypeOfMember<decltype(Member)>::Type value = {};

  void start(const NewStack&) noexcept { value = {}; }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { value = tstate->*Member; }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept { tstate->*Member = value; }
};

// --- fields that every version has ----------------------------------------------------------

// The chain of exceptions that are being handled. Its bottom belongs to the stack.
struct HandledExceptions {
  _PyErr_StackItem* exc_info = nullptr;

  void start(const NewStack& stack) noexcept { exc_info = stack.handled; }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { exc_info = tstate->exc_info; }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->exc_info = exc_info;
  }
};

// The context of context variables. Owned while the stack is suspended or has not started; may be
// null.
struct ContextVariables {
  PyObject* context = nullptr;

  static void start(const NewStack&) noexcept {}  // a context that was set before is kept
  void save(PyThreadState* tstate, const ImplFields&) noexcept { context = tstate->context; }
  void restore(PyThreadState* tstate, const ImplFields&) noexcept {
    if (tstate->context != context) {
      // ContextVar.get() caches its value under this version.
      ++tstate->context_ver;
      tstate->context = context;
    }
    context = nullptr;
  }
};

// The data stack: where Python frames lie.
struct DataStack {
  _PyStackChunk* chunk = nullptr;
  PyObject** top = nullptr;
  PyObject** limit = nullptr;

  void start(const NewStack& stack) noexcept {
    // Makes the root chunk as push_chunk() of pystate.c does. CPython never frees a chunk that has
    // no previous one. It leaves the first slot of the root chunk empty, to recognize the chunk.
    auto* const root = reinterpret_cast<_PyStackChunk*>(stack.data);
    root->previous = nullptr;
    root->size = stack.data_bytes;
    root->top = 0;
    chunk = root;
    top = &root->data[1];
    limit = reinterpret_cast<PyObject**>(stack.data + stack.data_bytes);
  }
  void save(PyThreadState* tstate, const ImplFields&) noexcept {
    chunk = tstate->datastack_chunk;
    top = tstate->datastack_top;
    limit = tstate->datastack_limit;
  }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->datastack_chunk = chunk;
    tstate->datastack_top = top;
    tstate->datastack_limit = limit;
  }

  // False if frames lie in further chunks than the root chunk, which begins at `data`.
  bool is_in_root(const std::byte* data) const noexcept {
    return reinterpret_cast<const std::byte*>(chunk) == data;
  }
  // The end of the frames in the root chunk, which begins at `data`. The root chunk notes its end
  // when the interpreter moves on to a further chunk.
  const std::byte* end_in_root(const std::byte* data) const noexcept {
    const auto* const root = reinterpret_cast<const _PyStackChunk*>(data);
    return reinterpret_cast<const std::byte*>(chunk == root ? top : &root->data[root->top]);
  }
};

// How deep the calls are that the interpreter counts: Python calls, and on 3.11 C calls as well.
// The depth is saved, and not what remains, because sys.setrecursionlimit() may change the limit
// while the stack is suspended.
template <int PyThreadState::* Limit, int PyThreadState::* Remaining>
struct Depth {
  int depth = 0;

  // Inherits the depth of its starter. So greenlets that start greenlets without end reach the
  // recursion limit before they use up the memory.
  void start(const NewStack& stack) noexcept { depth = of(stack.tstate); }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { depth = of(tstate); }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->*Remaining = tstate->*Limit - depth;
  }

  static int of(const PyThreadState* tstate) noexcept {
    return tstate->*Limit - tstate->*Remaining;
  }
};

// --- fields that several versions have ------------------------------------------------------

// The innermost frame (3.13+).
template <_PyInterpreterFrame* PyThreadState::* Current>
struct CurrentFrame {
  _PyInterpreterFrame* frame = nullptr;

  void start(const NewStack&) noexcept { frame = nullptr; }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { frame = tstate->*Current; }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->*Current = frame;
  }
  void finish() noexcept { frame = nullptr; }
  void relocate(const Relocation& moved) noexcept { frame = moved(frame); }

  _PyInterpreterFrame* innermost() const noexcept { return frame; }
  // Where the pointer to the innermost frame is; it need not be readable.
  const void* place_of_innermost() const noexcept { return &frame; }
  static const void* place_of_running(const PyThreadState* tstate) noexcept {
    return &(tstate->*Current);
  }
  // The innermost frame of the stack that a thread runs.
  static _PyInterpreterFrame* running(const PyThreadState* tstate) noexcept {
    return tstate->*Current;
  }
  // A new reference to the innermost complete frame; null without an exception if there is none.
  // CPython makes a frame object only for what a thread state runs. So for one call the calling
  // thread's state seems to run the suspended frames.
  PyFrameObject* innermost_object(PyThreadState* tstate) const noexcept {
    _PyInterpreterFrame* const running = std::exchange(tstate->*Current, frame);
    PyFrameObject* const object = PyThreadState_GetFrame(tstate);
    tstate->*Current = running;
    return object;
  }
};

// How many more C calls may nest (3.12 and 3.13). `Most` is what CPython allows on a stack of
// 8 MiB.
template <int PyThreadState::* Remaining, int Most>
struct RemainingCCalls {
  int remaining = 0;

  void start(const NewStack& stack) noexcept {
    remaining = most_on(static_cast<std::size_t>(stack.data - stack.low));
  }
  void save(PyThreadState* tstate, const ImplFields&) noexcept { remaining = tstate->*Remaining; }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->*Remaining = remaining;
  }

  // How many C calls to allow on a stack of this size. On a stack of 8 MiB, or more, as many as
  // CPython allows, because programs may need them. That many fit there, except for calls of the
  // kind that takes most stack: a sort of objects whose __lt__() sorts. On a smaller stack, only as
  // many as fit even if all calls are of that kind.
  static int most_on(std::size_t stack_bytes) noexcept {
    constexpr std::uint64_t kFullStack = std::uint64_t{8} << 20;
    constexpr std::uint64_t kMostForACall = 2048;  // 1717 measured; other compilers may take more
    constexpr std::uint64_t kForTheLastCall = std::uint64_t{48} << 10;  // it may have buffers
    if (stack_bytes >= kFullStack) {
      return Most;
    }
    return static_cast<int>(std::min(std::uint64_t{Most} * stack_bytes / kFullStack,
                                     (stack_bytes - kForTheLastCall) / kMostForACall));
  }

  // While one of these lives, the running stack has only as many C calls left as `owner` has.
  class Borrowed {
   public:
    Borrowed(PyThreadState* tstate, const ImplFields&, const RemainingCCalls& owner) noexcept
        : tstate_(tstate), taken_(tstate->*Remaining - owner.remaining) {
      tstate->*Remaining -= taken_;
    }
    ~Borrowed() { tstate_->*Remaining += taken_; }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

   private:
    PyThreadState* const tstate_;
    const int taken_;
  };
};

// The bounds of the C stack (3.14+).
struct CStackLimits {
  StackLimits limits;

  void start(const NewStack& stack) noexcept {
    limits = StackLimits::of_stack(stack.low, stack.data);
  }
  void save(PyThreadState*, const ImplFields& impl) noexcept { limits = *impl.stack_limits; }
  void restore(PyThreadState*, const ImplFields& impl) const noexcept {
    *impl.stack_limits = limits;
  }

  // While one of these lives, the limits of `owner` hold for the running stack.
  class Borrowed {
   public:
    Borrowed(PyThreadState*, const ImplFields& impl, const CStackLimits& owner) noexcept
        : limits_(impl.stack_limits), own_(*impl.stack_limits) {
      *limits_ = owner.limits;
    }
    ~Borrowed() { *limits_ = own_; }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

   private:
    StackLimits* const limits_;
    const StackLimits own_;
  };
};

// --- not a field of the thread state --------------------------------------------------------

// The operands of the call by which the innermost Python frame of a stack leaves it: the arguments
// of a vectorcall, [begin, end). Null if unknown, or if it was another kind of call.
struct Operands {
  PyObject* const* begin = nullptr;
  PyObject* const* end = nullptr;

  void set(const Operands& operands) noexcept { *this = operands; }
  void relocate(const Relocation& moved) noexcept {
    begin = moved(begin);
    end = moved(end);
  }
};

// For versions whose frames know their stack pointer, and need no operands (3.14+).
struct NoOperands {
  static void set(const Operands&) noexcept {}
  static void relocate(const Relocation&) noexcept {}
};

}  // namespace greenlet::cpython
