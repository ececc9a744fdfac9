// The control block: creation and destruction, run, parents, the call of run, traversal.
#include "core/greenlet.h"

#include <mutex>
#include <new>
#include <utility>

#include "core/thread.h"
#include "cpython/locks.h"
#include "cpython/objects.h"
#include "cpython/require.h"

namespace greenlet::core {

Ref Greenlet::create(PyTypeObject* type, ModuleState* module, PyObject* parent) noexcept {
  // On 32-bit ARM a block has fields that must be aligned to 8 bytes, and the end of its object is
  // aligned to 4.
  constexpr bool kFitsBehindObject = alignof(Greenlet) <= alignof(Object);
  Ref self;
  void* memory = nullptr;
  if (cpython::kAllocatesWithRoom && kFitsBehindObject && type == module->greenlet_type) {
    self = Ref::take(cpython::allocate_with_room(type, sizeof(Greenlet)));
    memory = self ? reinterpret_cast<Object*>(self.get()) + 1 : nullptr;
  } else {
    self = Ref::take(type->tp_alloc(type, 0));
  }
  if (!self) {
    return {};
  }
  const bool is_tracked = memory == nullptr;
  if (memory == nullptr) {
    memory = PyMem_Malloc(sizeof(Greenlet));
    if (memory == nullptr) {
      PyErr_NoMemory();
      return {};
    }
  }
  auto* const object = reinterpret_cast<Object*>(self.get());
  auto* const greenlet = new (memory) Greenlet(object, module);
  greenlet->parent_ = Py_XNewRef(parent);
  object->greenlet = greenlet;
  if (!is_tracked) {
    PyObject_GC_Track(object);
  }
  return self;
}

void Greenlet::destroy() noexcept {
  cpython::require(!is_active(), "greenlet: a greenlet is deallocated that has a stack in use");
  drop_references(Ref::take(std::exchange(parent_, nullptr)));  // no chain of parents has it
  if (notes_ != nullptr) [[unlikely]] {
    drop_notes();
  }
  object_->greenlet = nullptr;
  const bool embedded = is_embedded();
  this->~Greenlet();
  if (!embedded) {
    PyMem_Free(this);
  }
}

Ref Greenlet::run() const noexcept {
  const cpython::ObjectLock lock(object());
  return Ref::share(state() == State::kNew ? run_ : nullptr);
}

bool Greenlet::set_run(Ref run) noexcept {
  Ref old;  // dropped without the lock
  const cpython::ObjectLock lock(object());
  if (state() != State::kNew) {
    return false;
  }
  old = Ref::take(std::exchange(run_, run.release()));
  return true;
}

Ref Greenlet::parent() const noexcept {
  const cpython::ObjectLock lock(object());
  return Ref::share(parent_);
}

bool Greenlet::exchange_parent(Ref& parent) noexcept {
  const cpython::ObjectLock lock(object());
  const std::lock_guard chains(module_->parents);
  for (PyObject* ancestor = parent.get(); ancestor != nullptr; ancestor = of(ancestor).parent_) {
    if (ancestor == object()) {
      return false;
    }
  }
  parent = Ref::take(std::exchange(parent_, parent.release()));
  return true;
}

Ref Greenlet::thread_representative() const noexcept {
  Ref candidate = Ref::share(object());
  for (;;) {
    const Greenlet& greenlet = of(candidate.get());
    const State state = greenlet.state();
    if (state != State::kNew && state != State::kDead) {
      return candidate;
    }
    Ref parent = greenlet.parent();
    if (!parent) {
      return candidate;
    }
    candidate = std::move(parent);
  }
}

PyObject* Greenlet::call_run() noexcept {
  if (args_is_single_) {
    if (PyVectorcall_Function(run_) != nullptr) [[likely]] {
      return PyObject_Vectorcall(run_, &args_, 1, nullptr);
    }
    PyObject* const tuple = PyTuple_Pack(1, args_);
    if (tuple == nullptr) {
      return nullptr;
    }
    args_is_single_ = false;
    Py_SETREF(args_, tuple);
  }
  if (kwargs_ == nullptr || PyVectorcall_Function(run_) == nullptr) {
    return PyObject_Call(run_, args_, kwargs_);
  }
  // PyObject_Call() would copy the dict's items to an array on the heap. That array owns references
  // which the collector cannot visit. So copy them to tuples.
  const Py_ssize_t positional = PyTuple_GET_SIZE(args_);
  const Py_ssize_t keywords = PyDict_GET_SIZE(kwargs_);
  Ref all = Ref::take(PyTuple_New(positional + keywords));
  Ref names = Ref::take(PyTuple_New(keywords));
  if (!all || !names) {
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < positional; ++i) {
    PyTuple_SET_ITEM(all.get(), i, Py_NewRef(PyTuple_GET_ITEM(args_, i)));
  }
  PyObject *name, *value;
  for (Py_ssize_t i = 0, next = 0; PyDict_Next(kwargs_, &next, &name, &value); ++i) {
    if (!PyUnicode_Check(name)) {
      PyErr_SetString(PyExc_TypeError, "keywords must be strings");
      return nullptr;
    }
    PyTuple_SET_ITEM(names.get(), i, Py_NewRef(name));
    PyTuple_SET_ITEM(all.get(), positional + i, Py_NewRef(value));
  }
  Py_SETREF(args_, all.release());
  Py_SETREF(kwargs_, names.release());
  return PyObject_Vectorcall(run_, &PyTuple_GET_ITEM(args_, 0),
                             static_cast<std::size_t>(positional), kwargs_);
}

std::size_t Greenlet::stack_in_use() const noexcept {
  if (state() != State::kSuspended) {
    return 0;
  }
  // A main greenlet's boundary is the place on the stack where its thread first used greenlets. The
  // thread may have returned from there.
  const std::byte* const now = context_.stack_pointer();
  return now < region_.boundary ? static_cast<std::size_t>(region_.boundary - now) : 1;
}

void Greenlet::keep() noexcept {
  if ((remaining_ & kIsKept) == 0) {
    remaining_ |= kIsKept;
    Py_INCREF(object());
  }
}

void Greenlet::abandon(const cpython::ImplFields& fields) noexcept {
  thread_ = nullptr;
  state_ = State::kAbandoned;
  // Nothing can unwind the frames any more. They own what they refer to for good, and frame objects
  // may point to them. So neither the stack nor the greenlet can be freed.
  stack_state_.abandon(fields);
  if (!cpython::is_being_deallocated(object())) {
    keep();
  }
}

void Greenlet::abandon_main() noexcept {
  // Its stack goes with the thread, and may be gone already (daemon threads).
  stack_state_.finish();
  thread_ = nullptr;
  state_ = State::kAbandoned;
}

int Greenlet::traverse(visitproc visit, void* arg) noexcept {
  Py_VISIT(parent_);
  Py_VISIT(run_);
  Py_VISIT(args_);
  Py_VISIT(kwargs_);
  if (notes_ != nullptr) [[unlikely]] {
    Py_VISIT(notes_->origin);
  }
  if (state() == State::kRunning) {
    return 0;  // the thread state has all that its stack refers to
  }
  if (Thread* const owner = thread()) {
    owner->read_ahead().visit(*owner, *this);
  }
  return stack_state_.traverse(visit, arg);
}

void Greenlet::clear() noexcept {
  if (state() == State::kSuspended) {
    return;
  }
  if (notes_ != nullptr) {
    Py_CLEAR(notes_->origin);
  }
  Ref parent;
  {
    const std::lock_guard chains(module_->parents);
    parent = Ref::take(std::exchange(parent_, nullptr));
  }
  drop_references(std::move(parent));
}

Greenlet::Notes* Greenlet::make_notes() noexcept {
  if (notes_ == nullptr) {
    if (void* const memory = PyMem_RawMalloc(sizeof(Notes))) {
      notes_ = new (memory) Notes;
    }
  }
  return notes_;
}

void Greenlet::drop_notes() noexcept {
  Notes* const notes = std::exchange(notes_, nullptr);
  Py_XDECREF(notes->origin);
  Py_XDECREF(notes->name);
  PyMem_RawFree(notes);
}

void Greenlet::drop_references(Ref parent) noexcept {
  // As the published greenlet does: first the context goes, then the parent, then run.
  const Ref run = Ref::take(std::exchange(run_, nullptr));
  const Ref before_run = std::move(parent);
  if (state() != State::kRunning) {
    const Ref context = Ref::take(stack_state_.exchange_context_variables(nullptr));
    // The frames of an abandoned greenlet stay: frame objects may point to them.
    if (state() != State::kAbandoned || is_main_) {
      stack_state_.release_held();
    }
  }
}

}  // namespace greenlet::core
