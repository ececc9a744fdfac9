// What AddressSanitizer, ThreadSanitizer and Valgrind must be told about contexts. In a build
// without them (the usual one) everything here is empty and costs nothing.
// Every object that includes context.h must be compiled with the same sanitizers.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(GREENLET_VALGRIND)
#include <valgrind/valgrind.h>
#endif

namespace greenlet::context {

// Entered on the new stack by the first switch to it, with that switch's message. Must not return.
using Entry = void (*)(void* message);

// The part of a Context that belongs to the tools. One switch calls them in this order: leave() or
// leave_for_good() on the side that is left, then the register swap, then arrive() on the other
// side, which may be a context that has just begun.
class Sanitizers {
 public:
  // A new context will run on [low, top).
  void prepare(std::byte* low, std::byte* top) noexcept;
  void leave(Sanitizers& to) noexcept;
  void leave_for_good(Sanitizers& to) noexcept;
  void arrive() noexcept;
  // The context will never run again and its stack is about to be reused.
  void retire() noexcept;
  // Calls call(function, argument), and returns the result. `call` calls the function on the stack
  // of the suspended context that this belongs to.
  template <typename Call>
  void* call(Call call, void* (*function)(void*), void* argument) noexcept;
  // Returns the function in which a new context begins: `entry` itself, or, if the tool must be
  // told of the arrival, a function that calls arrive() and then `entry`.
  Entry first(Entry entry) noexcept;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(GREENLET_VALGRIND)
 private:
#endif
#if defined(__SANITIZE_ADDRESS__)
  // A thread's own context is never prepared; the first switch that leaves it learns its bounds.
  const void* low_ = nullptr;
  std::size_t size_ = 0;
  void* fake_stack_ = nullptr;
  const std::byte* left_at_ = nullptr;  // in the frame that left it last
  // The context that this thread's switch under way leaves; null if it will not come back.
  static inline thread_local Sanitizers* leaving_ = nullptr;
  // The context that this switch enters.
  static inline thread_local Sanitizers* entering_ = nullptr;
  Entry entry_ = nullptr;  // what begin() calls

  static void begin(void* message) {
    Sanitizers* self = entering_;
    self->arrive();
    self->entry_(message);
  }
#endif
#if defined(__SANITIZE_THREAD__)
  void* fiber_ = nullptr;
  bool owns_fiber_ = false;
#endif
#if defined(GREENLET_VALGRIND)
  unsigned stack_id_ = 0;
  bool registered_ = false;
#endif
};

// Always inlined: ThreadSanitizer keeps a call stack per fiber, so no instrumented function may
// begin on one fiber and end on another.
[[gnu::always_inline]] inline void Sanitizers::prepare([[maybe_unused]] std::byte* low,
                                                       [[maybe_unused]] std::byte* top) noexcept {
  retire();  // the context that this object was before
#if defined(__SANITIZE_ADDRESS__)
  low_ = low;
  size_ = static_cast<std::size_t>(top - low);
  fake_stack_ = nullptr;
  left_at_ = nullptr;
#endif
#if defined(__SANITIZE_THREAD__)
  fiber_ = __tsan_create_fiber(0);
  owns_fiber_ = true;
#endif
#if defined(GREENLET_VALGRIND)
  stack_id_ = VALGRIND_STACK_REGISTER(low, top - 1);
  registered_ = true;
#endif
}

[[gnu::always_inline]] inline Entry Sanitizers::first(Entry entry) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  entry_ = entry;
  return &Sanitizers::begin;
#else
  return entry;
#endif
}

[[gnu::always_inline]] inline void Sanitizers::leave([[maybe_unused]] Sanitizers& to) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  leaving_ = this;
  entering_ = &to;
  left_at_ = static_cast<const std::byte*>(__builtin_frame_address(0));
  __sanitizer_start_switch_fiber(&fake_stack_, to.low_, to.size_);
#endif
#if defined(__SANITIZE_THREAD__)
  if (fiber_ == nullptr) {
    fiber_ = __tsan_get_current_fiber();
  }
  __tsan_switch_to_fiber(to.fiber_, 0);
#endif
}

[[gnu::always_inline]] inline void Sanitizers::leave_for_good(
    [[maybe_unused]] Sanitizers& to) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  // A null handle: the fake stack of this context is freed, not kept for a return.
  leaving_ = nullptr;
  entering_ = &to;
  left_at_ = static_cast<const std::byte*>(__builtin_frame_address(0));
  __sanitizer_start_switch_fiber(nullptr, to.low_, to.size_);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.fiber_, 0);
#endif
}

[[gnu::always_inline]] inline void Sanitizers::arrive() noexcept {
#if defined(__SANITIZE_ADDRESS__)
  const void* low = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(fake_stack_, &low, &size);
  if (leaving_ != nullptr) {
    leaving_->low_ = low;
    leaving_->size_ = size;
  }
#endif
}

// AddressSanitizer treats it as a switch to another stack, whose fake frames are freed when the
// call is over. ThreadSanitizer needs nothing: it follows calls, not stack pointers.
template <typename Call>
[[gnu::always_inline]] inline void* Sanitizers::call(Call call, void* (*function)(void*),
                                                     void* argument) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  struct Called {
    void* (*function)(void*);
    void* argument;
    void* fake_stack;  // the caller's
    const void* low;   // the caller's stack
    std::size_t size;
  } called{function, argument, nullptr, nullptr, 0};
  __sanitizer_start_switch_fiber(&called.fake_stack, low_, size_);
  void* const result = call(
      [](void* at) {
        auto& self = *static_cast<Called*>(at);
        __sanitizer_finish_switch_fiber(nullptr, &self.low, &self.size);
        void* const got = self.function(self.argument);
        __sanitizer_start_switch_fiber(nullptr, self.low, self.size);
        return got;
      },
      &called);
  __sanitizer_finish_switch_fiber(called.fake_stack, nullptr, nullptr);
  return result;
#else
  return call(function, argument);
#endif
}

[[gnu::always_inline]] inline void Sanitizers::retire() noexcept {
#if defined(__SANITIZE_ADDRESS__)
  if (size_ != 0 && left_at_ != nullptr) {
    // Frames that were left for good have not removed the red zones around their variables. Below
    // the innermost of them there are none. To unpoison the rest of the stack, too, would write
    // to an eighth of its size of shadow memory.
    constexpr std::ptrdiff_t kLargestFrame = std::ptrdiff_t{16} << 10;
    const auto* const low = static_cast<const std::byte*>(low_);
    const auto* const begin = left_at_ - low > kLargestFrame ? left_at_ - kLargestFrame : low;
    __asan_unpoison_memory_region(begin, static_cast<std::size_t>(low + size_ - begin));
  }
  size_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  if (owns_fiber_) {
    __tsan_destroy_fiber(fiber_);
  }
  fiber_ = nullptr;
  owns_fiber_ = false;
#endif
#if defined(GREENLET_VALGRIND)
  if (registered_) {
    VALGRIND_STACK_DEREGISTER(stack_id_);
    registered_ = false;
  }
#endif
}

}  // namespace greenlet::context
