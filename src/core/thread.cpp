// The beginning and the end of a Thread's data.
#include "core/thread.h"

#include <memory>
#include <utility>

#include "core/freezing.h"

namespace greenlet::core {

void Thread::begin(PyThreadState* tstate, ModuleState* module, Greenlet& main) noexcept {
  tstate_ = tstate;
  impl_fields_ = cpython::ImplFields::of(tstate);
  module_ = module;
  module_object_ = Py_NewRef(module->object);
  pool_.join(module);
  main_ = &main;
  running_ = &main;
  Py_INCREF(main.object());  // as the main greenlet
  Py_INCREF(main.object());  // as the running one
  main.is_main_ = true;
  main.thread_ = this;
  main.state_ = State::kRunning;
  main.region_.boundary = static_cast<std::byte*>(__builtin_frame_address(0));
  ++module->main_greenlets;
  owner_id_.store(cpython::id_of(tstate), std::memory_order_relaxed);
  owner_tstate_.store(tstate, std::memory_order_relaxed);
  set_attention(kTracedInAll, module->tracer != nullptr);
  set_attention(kHooked, module->hook.function != nullptr);
  set_attention(kFreezes, Freezer::test_mode() != Freezer::TestMode::kOff);
  notes_origin_ = module->origin_frames.load(std::memory_order_relaxed) != 0;
  listed_in_.store(module, std::memory_order_release);
}

Thread::Owned Thread::reset() noexcept {
  listed_in_.store(nullptr, std::memory_order_relaxed);
  --module_->main_greenlets;
  Owned owned{exchange_tracer({}), Ref::take(std::exchange(module_object_, nullptr)),
              Ref::take(std::exchange(main_, nullptr)->object()),
              Ref::take(std::exchange(running_, nullptr)->object())};
  started_.clear();
  sweep_ = {};
  recorded_ = nullptr;
  attention_ = 0;
  end_phase_ = End::kNotYet;
  is_on_thread_stack_ = false;
  std::destroy_at(&pool_);
  std::construct_at(&pool_);
  return owned;
}

void Thread::give_back_thread_state() noexcept {
  // The bounds of the C stack stay those of the running greenlet: its stack still runs.
  cpython::StackLimits limits;
  if (impl_fields_.stack_limits != nullptr) {
    limits = *impl_fields_.stack_limits;
  }
  running_->stack_state_.save(tstate_, impl_fields_);
  main_->stack_state_.restore(tstate_, impl_fields_);
  if (impl_fields_.stack_limits != nullptr) {
    *impl_fields_.stack_limits = limits;
  }
}

}  // namespace greenlet::core
