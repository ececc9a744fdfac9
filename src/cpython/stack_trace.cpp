#include "cpython/stack_trace.h"

#include "cpython/internals.h"

namespace greenlet::cpython {
namespace {

std::size_t trace(_PyInterpreterFrame* frame, CodePosition* found, std::size_t most,
                  bool counts_all = true) noexcept {
  std::size_t count = 0;
  for (; frame != nullptr && (counts_all || count < most); frame = frame->previous) {
    // A frame is incomplete while its first instructions make its cells and its generator.
    if (is_shim(frame) || _PyFrame_IsIncomplete(frame)) {
      continue;
    }
    if (count < most) {
      found[count] = {
          .code = code_of(frame),
          .offset = static_cast<int>(_PyInterpreterFrame_LASTI(frame) * sizeof(_Py_CODEUNIT))};
    }
    ++count;
  }
  return count;
}

}  // namespace

std::size_t trace_suspended(const StackState& stack, CodePosition* found,
                            std::size_t most) noexcept {
  return trace(stack.innermost(), found, most);
}

std::size_t trace_running(PyThreadState* tstate, CodePosition* found, std::size_t most) noexcept {
  return trace(SavedFields::running(tstate), found, most);
}

std::size_t trace_innermost(PyThreadState* tstate, CodePosition* found, std::size_t most) noexcept {
  return trace(SavedFields::running(tstate), found, most, /*counts_all=*/false);
}

}  // namespace greenlet::cpython
