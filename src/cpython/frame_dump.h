// The frames of a stack as text, in a signal handler: without memory, locks, or references.
#pragma once

#include <Python.h>

#include <cstddef>
#include <string_view>

#include "cpython/stack_state.h"

namespace greenlet::cpython {

// Text that goes to a file descriptor a piece at a time. Safe in a signal handler.
class Dump {
 public:
  // cppcheck-suppress uninitMemberVar  ; only what has been added is read
  explicit Dump(int descriptor) noexcept : descriptor_(descriptor) {}
  ~Dump() { flush(); }
  Dump(const Dump&) = delete;
  Dump& operator=(const Dump&) = delete;

  Dump& add(std::string_view text) noexcept;
  Dump& add(std::size_t number) noexcept;
  Dump& add_address(const void* address) noexcept;
  // A str; characters that are not ASCII are escaped, and a long one is cut off.
  Dump& add_text(const PyObject* text) noexcept;
  void flush() noexcept;

 private:
  static constexpr std::size_t kSize = 512;
  char text_[kSize];
  std::size_t length_ = 0;
  const int descriptor_;
};

// Adds a line for each Python frame, the innermost first, with `indent` in front. The stack may run
// meanwhile, in another thread: what is read then may be wrong, and a frame that cannot be read
// ends the list.
void dump_suspended(const StackState& stack, std::string_view indent, Dump& text) noexcept;
void dump_running(const PyThreadState* tstate, std::string_view indent, Dump& text) noexcept;

}  // namespace greenlet::cpython
