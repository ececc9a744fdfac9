// The collector's protocol for greenlets, and their finalization and deallocation.
#include "core/collection.h"

#include <type_traits>

#include "core/greenlet.h"
#include "core/killing.h"
#include "core/thread_registry.h"
#include "cpython/gc_protocol.h"
#include "cpython/objects.h"

namespace greenlet::core {
namespace {

// An instance of a heap type owns a reference to its type. True if `ours`, the function in our
// type's slot, has to visit or to drop that reference; false if the function that has called `ours`
// does it:
//
//  - `subtype`, CPython's function for all classes made in Python, calls the first different
//    function among its base classes. If the type with that function is a heap type, `subtype`
//    leaves the reference to it.
//  - A compiled class may have a function of its own. Such classes are written for the published
//    greenlet, whose type is static and never does it; so their functions do it.
template <typename Function>
bool owns_type_through(PyObject* self, Function PyTypeObject::* slot, Function subtype,
                       std::type_identity_t<Function> ours) noexcept {
  PyTypeObject* type = Py_TYPE(self);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    return false;
  }
  while (type->*slot == subtype && type->tp_base != nullptr) {
    type = type->tp_base;
  }
  return type->*slot == ours && PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE);
}

Object* greenlet_object(PyObject* self) noexcept { return reinterpret_cast<Object*>(self); }

KillCause cause_of_finalization(PyObject* self) noexcept {
  return cpython::is_finalized_for_deallocation(self) ? KillCause::kDropped : KillCause::kCollected;
}

// tp_finalize of subclasses with __del__, which is called first and may bring the greenlet back to
// life.
void finalize_subclass(PyObject* self) noexcept {
  const Py_ssize_t references = Py_REFCNT(self);
  Greenlet* const greenlet = greenlet_object(self)->greenlet;
  if (greenlet == nullptr) {
    return;  // there was no memory for the control block
  }
  const KillCause cause = cause_of_finalization(self);
  if (greenlet->claim_del()) {
    greenlet->module().slot_tp_finalize(self);
  }
  if (Py_REFCNT(self) <= references) {
    kill_unreachable(*greenlet, cause);
  }
}

// Makes CPython finalize a greenlet that has survived its last finalization; normally it finalizes
// an object once.
void prepare_to_finalize(PyObject* self, Greenlet& greenlet) noexcept {
  if (const State state = greenlet.state(); state != State::kSuspended && state != State::kNew) {
    return;
  }
  // The class may have got a __del__ since the instance was made.
  adopt_finalizer(Py_TYPE(self), greenlet.module());
  const destructor finalizer = Py_TYPE(self)->tp_finalize;
  if (finalizer == &finalize_subclass && PyObject_GC_IsFinalized(self) != 0) {
    // CPython has called __del__ before the class got finalize_subclass(), or we have called it.
    greenlet.claim_del();
  }
  if (finalizer == &finalize_greenlet || finalizer == &finalize_subclass) {
    cpython::allow_finalizer_again(self);
  }
}

// In the pass that recounts: decides about a greenlet that the collection has found to be garbage
// and has finalized.
void recount(PyObject* self, Greenlet& greenlet) noexcept {
  if (greenlet.take_found_by_collector()) {
    DroppedQueue::hand_over(greenlet, /*by_collector=*/true);
  }
  if (greenlet.state() != State::kSuspended) {
    return;
  }
  // It did not finish, or its owner has not killed it yet, or its class's finalizer does not call
  // ours. If tp_clear came to the greenlet and to what its frames use, its finally blocks could
  // never run. So count it as used; the next collection decides again.
  cpython::count_as_used(self);
  greenlet.stack_state().hold_when_marked();
  if (cpython::only_collection_refers_to(self)) {
    // The collection drops this last reference later, without a finalization.
    DroppedQueue::hand_over(greenlet, /*by_collector=*/false);
  }
}

}  // namespace

int traverse_greenlet(PyObject* self, visitproc visit, void* arg) noexcept {
  const cpython::Pass pass = cpython::pass_of(self, visit, arg);
  Greenlet* const greenlet = greenlet_object(self)->greenlet;
  if (greenlet == nullptr) {
    return 0;  // tp_alloc() has tracked it, and the control block is being made
  }
  if (pass != cpython::Pass::kDoesNotCount) {
    prepare_to_finalize(self, *greenlet);
  }
  if (pass == cpython::Pass::kRecounts) {
    recount(self, *greenlet);
  }
  if (owns_type_through(self, &PyTypeObject::tp_traverse, greenlet->module().subtype_traverse,
                        &traverse_greenlet)) {
    Py_VISIT(Py_TYPE(self));
  }
  Py_VISIT(greenlet_object(self)->dict);
  return greenlet->traverse(visit, arg);
}

void ReadAhead::visit(Thread& owner, const Greenlet& greenlet) noexcept {
  constexpr int kBatch = 16;
  const bool forward = GreenletList::before(greenlet) == last_visited_;
  const bool backward = GreenletList::after(greenlet) == last_visited_;
  last_visited_ = &greenlet;
  if (forward == backward || --until_batch_ > 0) {
    return;
  }
  until_batch_ = kBatch;
  if (os_thread.thread == &owner && owner.is_of(cpython::current_thread_state())) {
    owner.note_event();  // the collection runs in the owner thread
  }
  const Greenlet* ahead = &greenlet;
  for (int i = 0; i < kBatch; ++i) {
    ahead = forward ? GreenletList::after(*ahead) : GreenletList::before(*ahead);
    if (ahead == nullptr || ahead->state() != State::kSuspended) {
      return;
    }
    ahead->stack_state().read_ahead();
  }
}

void finalize_greenlet(PyObject* self) noexcept {
  // The control block is null if there was no memory for it.
  if (Greenlet* const greenlet = greenlet_object(self)->greenlet) {
    kill_unreachable(*greenlet, cause_of_finalization(self));
  }
}

int clear_greenlet(PyObject* self) noexcept {
  Greenlet* const greenlet = greenlet_object(self)->greenlet;
  if (greenlet != nullptr && greenlet->state() == State::kSuspended) {
    // Its class's tp_traverse does not call ours. So the collection does not know what the greenlet
    // refers to, and has not found that to be garbage.
    return 0;
  }
  Py_CLEAR(greenlet_object(self)->dict);
  if (greenlet != nullptr) {
    greenlet->clear();
  }
  return 0;
}

void deallocate_greenlet(PyObject* self) noexcept {
  Greenlet* const greenlet = greenlet_object(self)->greenlet;
  PyTypeObject* const type = Py_TYPE(self);
  const ModuleState* const module =
      greenlet != nullptr ? &greenlet->module() : ModuleState::of_interpreter_or_null();
  const bool owns_type =
      module != nullptr && owns_type_through(self, &PyTypeObject::tp_dealloc,
                                             module->subtype_dealloc, &deallocate_greenlet);
  if (greenlet != nullptr && greenlet->state() == State::kSuspended) {
    // CPython calls tp_finalize once, so this is where a greenlet of a subclass that has survived a
    // finalization is killed. If it survives again, it keeps its reference to its class, which the
    // function that has called this one (subtype_dealloc(), for one) drops when this one returns.
    const bool caller_drops_type = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && !owns_type;
    if (caller_drops_type) {
      Py_INCREF(type);
    }
    if (cpython::finalize_in_dealloc(self, [](PyObject* revived) { finalize_greenlet(revived); })) {
      return;
    }
    if (caller_drops_type) {
      Py_DECREF(type);
    }
  }
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, deallocate_greenlet);
  if (greenlet_object(self)->weakreflist != nullptr) {
    PyObject_ClearWeakRefs(self);
  }
  Py_CLEAR(greenlet_object(self)->dict);
  if (greenlet != nullptr) {
    greenlet->destroy();
  }
  type->tp_free(self);
  if (owns_type) {
    cpython::drop_type(type);
  }
  Py_TRASHCAN_END;
}

void adopt_finalizer(PyTypeObject* type, const ModuleState& module) noexcept {
  // Other threads may make an instance of it at the same time, or look at the slot.
  destructor found = __atomic_load_n(&type->tp_finalize, __ATOMIC_RELAXED);
  if (found == module.slot_tp_finalize) {
    __atomic_compare_exchange_n(&type->tp_finalize, &found, &finalize_subclass, /*weak=*/false,
                                __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  }
}

}  // namespace greenlet::core
