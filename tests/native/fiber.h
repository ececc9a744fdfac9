// The smallest thing that uses both rooms: a function on a stack of its own.
#pragma once

#include <functional>
#include <utility>

#include "context/context.h"
#include "stack/stack.h"

namespace greenlet::tests {

inline thread_local stack::Pool thread_pool;

class Fiber {
 public:
  // `body` gets the fiber and the first message. Its result goes to the last caller of resume().
  using Body = std::function<void*(Fiber&, void*)>;

  explicit Fiber(Body body) : body_(std::move(body)) {
    stack::Failure failure{};
    region_ = thread_pool.acquire(failure);
    if (!region_) {
      std::abort();
    }
    context_.prepare(region_.low, region_.boundary, &Fiber::enter);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    context_.retire();
    thread_pool.release(region_);
  }

  // Runs the body until it suspends or ends.
  void* resume(void* message = nullptr) {
    live_ = context::thread_exception_globals();
    void* result;
    if (!started_) {
      started_ = true;
      first_ = message;
      result = resumer_.switch_to(context_, live_, this);
    } else {
      result = resumer_.switch_to(context_, live_, message);
    }
    return result;
  }

  // Called by the body: back to the caller of resume().
  void* suspend(void* message = nullptr) { return context_.switch_to(resumer_, live_, message); }

  bool done() const { return done_; }
  const stack::Region& region() const { return region_; }
  context::Context& context() { return context_; }
  // The context that has called resume() last; suspended while the fiber runs.
  context::Context& resumer() { return resumer_; }

 private:
  static void enter(void* message) {
    auto* self = static_cast<Fiber*>(message);
    void* result = self->body_(*self, self->first_);
    self->done_ = true;
    self->context_.leave_for(self->resumer_, self->live_, result);
  }

  Body body_;
  stack::Region region_;
  context::Context context_;
  context::Context resumer_;
  context::ExceptionGlobals* live_ = nullptr;
  void* first_ = nullptr;
  bool started_ = false;
  bool done_ = false;
};

}  // namespace greenlet::tests
