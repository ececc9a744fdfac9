#include "cpython/loops.h"

#include <Python.h>
#include <opcode.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace greenlet::cpython {
namespace {

// Bytecode as the compiler has made it: base opcodes, with zeros (CACHE) for inline caches. Nodes
// of its flow are instructions, by their index.
class Flow {
 public:
  explicit Flow(PyObject* bytes) noexcept
      : code_(reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes))),
        size_(static_cast<std::size_t>(PyBytes_GET_SIZE(bytes)) / 2) {}

  // True if a cycle can be reached from an instruction. True, too, if there is no memory.
  bool has_cycle_from(std::size_t start) const noexcept { return reaches(Aim::kCycle, start); }
  // True if an instruction that raises can be reached before one that ends the handling of an
  // exception. True, too, if there is no memory.
  bool raises_from(std::size_t start) const noexcept { return reaches(Aim::kRaise, start); }

 private:
  enum class Aim : unsigned char { kCycle, kRaise };

  bool reaches(Aim aim, std::size_t start) const noexcept {
    if (start >= size_) {
      return false;
    }
    enum Mark : unsigned char { kUnseen, kOnPath, kDone };
    auto* const marks = static_cast<unsigned char*>(PyMem_Calloc(size_, 2));
    auto* const path = static_cast<std::uint32_t*>(PyMem_Calloc(size_, sizeof(std::uint32_t)));
    bool found = marks == nullptr || path == nullptr;
    if (!found) {
      unsigned char* const tried = marks + size_;  // successors
      std::size_t depth = 1;
      path[0] = static_cast<std::uint32_t>(start);
      marks[start] = kOnPath;
      while (depth > 0 && !found) {
        const std::size_t node = path[depth - 1];
        const Successors next = successors(node);
        if (aim == Aim::kRaise && (opcode(node) == RAISE_VARARGS || opcode(node) == RERAISE)) {
          found = true;
        } else if (tried[node] == next.count ||
                   (aim == Aim::kRaise && opcode(node) == POP_EXCEPT)) {
          marks[node] = kDone;
          --depth;
        } else if (const std::size_t successor = next.nodes[tried[node]++]; successor < size_) {
          if (marks[successor] == kUnseen) {
            marks[successor] = kOnPath;
            path[depth++] = static_cast<std::uint32_t>(successor);
          } else if (aim == Aim::kCycle) {
            found = marks[successor] == kOnPath;
          }
        }
      }
    }
    PyMem_Free(path);
    PyMem_Free(marks);
    return found;
  }

  struct Successors {
    unsigned char count = 0;
    std::array<std::size_t, 2> nodes{};
  };

  Successors successors(std::size_t node) const noexcept {
    std::size_t argument = 0;
    while (opcode(node) == EXTENDED_ARG && node + 1 < size_) {
      argument = (argument | code_[2 * node + 1]) << 8;
      ++node;
    }
    argument |= code_[2 * node + 1];
    const unsigned char operation = opcode(node);
    std::size_t next = node + 1;
    while (next < size_ && opcode(next) == CACHE) {
      ++next;
    }
    switch (operation) {
      case RETURN_VALUE:
#ifdef RETURN_CONST
      case RETURN_CONST:
#endif
      case RAISE_VARARGS:
      case RERAISE:
        return {};

      // Out of the loop or the wait: taken to come to that.
      case FOR_ITER:
      case SEND:
      case JUMP_FORWARD:
        return {.count = 1, .nodes = {next + argument}};

      case JUMP_BACKWARD:
      case JUMP_BACKWARD_NO_INTERRUPT:
        return {.count = 1, .nodes = {next - argument}};

#ifdef POP_JUMP_FORWARD_IF_TRUE  // 3.11
      case POP_JUMP_FORWARD_IF_TRUE:
      case POP_JUMP_FORWARD_IF_FALSE:
      case POP_JUMP_FORWARD_IF_NONE:
      case POP_JUMP_FORWARD_IF_NOT_NONE:
      case JUMP_IF_TRUE_OR_POP:
      case JUMP_IF_FALSE_OR_POP:
        return {.count = 2, .nodes = {next, next + argument}};
      case POP_JUMP_BACKWARD_IF_TRUE:
      case POP_JUMP_BACKWARD_IF_FALSE:
      case POP_JUMP_BACKWARD_IF_NONE:
      case POP_JUMP_BACKWARD_IF_NOT_NONE:
        return {.count = 2, .nodes = {next, next - argument}};
#else
      case POP_JUMP_IF_TRUE:
      case POP_JUMP_IF_FALSE:
      case POP_JUMP_IF_NONE:
      case POP_JUMP_IF_NOT_NONE:
        return {.count = 2, .nodes = {next, next + argument}};
#endif
      default:
        return {.count = 1, .nodes = {next}};
    }
  }

  unsigned char opcode(std::size_t node) const noexcept { return code_[2 * node]; }

  const unsigned char* code_;
  std::size_t size_;
};

// The answer to a question about the flow from where a frame is; true if there is no memory.
bool ask(PyFrameObject* frame, bool (Flow::*question)(std::size_t) const noexcept) noexcept {
  const int offset = PyFrame_GetLasti(frame);
  PyCodeObject* const code = PyFrame_GetCode(frame);
  PyObject* const bytes = PyCode_GetCode(code);
  Py_DECREF(code);
  if (bytes == nullptr) {
    PyErr_Clear();
    return true;
  }
  const bool answer = offset >= 0 && (Flow(bytes).*question)(static_cast<std::size_t>(offset) / 2);
  Py_DECREF(bytes);
  return answer;
}

// Consumes a reference to a frame, and returns one to its caller; null after the last.
PyFrameObject* step_out(PyFrameObject* frame) noexcept {
  PyFrameObject* const caller = PyFrame_GetBack(frame);
  Py_DECREF(frame);
  return caller;
}

// As the public one, of a frame and its callers; consumes the reference to it.
bool has_loop_ahead(PyFrameObject* frame) noexcept {
  bool found = false;
  while (frame != nullptr && !found) {
    found = ask(frame, &Flow::has_cycle_from);
    frame = step_out(frame);
  }
  Py_XDECREF(frame);
  return found;
}

}  // namespace

bool has_loop_ahead() noexcept {
  return has_loop_ahead(PyThreadState_GetFrame(PyThreadState_Get()));
}

bool has_loop_after_handling(PyObject* exception) noexcept {
  PyObject* const traceback = PyException_GetTraceback(exception);
  if (traceback == nullptr) {
    return false;
  }
  // The first entry is of the last frame that the exception came to.
  const void* const handler = reinterpret_cast<PyTracebackObject*>(traceback)->tb_frame;
  Py_DECREF(traceback);
  PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get());
  while (frame != nullptr && frame != handler) {
    frame = step_out(frame);
  }
  if (frame == nullptr || ask(frame, &Flow::raises_from)) {
    Py_XDECREF(frame);
    return false;
  }
  return has_loop_ahead(frame);
}

}  // namespace greenlet::cpython
