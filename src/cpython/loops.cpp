#include "cpython/loops.h"

#include <Python.h>
#include <opcode.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace greenlet::cpython {
namespace {

// Bytecode as the compiler has made it: base opcodes, with zeros (CACHE) for inline caches. Nodes
// of its flow are instructions, by their index. The exception table says of ranges of them where
// an exception leads to (CPython's InternalDocs/exception_handling.md).
class Flow {
 public:
  Flow(PyObject* bytes, PyObject* exception_table) noexcept
      : code_(bytes_of(bytes)),
        size_(static_cast<std::size_t>(PyBytes_GET_SIZE(bytes)) / 2),
        table_(bytes_of(exception_table)),
        table_end_(table_ + PyBytes_GET_SIZE(exception_table)) {}

  // True if a cycle can be reached from an instruction. True, too, if there is no memory.
  bool has_cycle_from(std::size_t start) const noexcept { return reaches(Aim::kCycle, start); }
  // True if the except clause that a frame is in ends there, and no block in it: no instruction
  // that raises can be reached before its end. False if there is no memory.
  bool ends_handling_from(std::size_t start) const noexcept {
    const std::optional<std::size_t> handler = handler_of(start);
    return !(handler && begins_to_handle(*handler)) && !reaches(Aim::kRaise, start);
  }
  // True if an exception that is raised at an instruction comes to a block that does its work and
  // raises it again, as `with` and `finally` do. True, too, if there is no memory.
  bool cleans_up_after(std::size_t start) const noexcept {
    std::optional<std::size_t> handler = handler_of(start);
    for (std::size_t most = size_; handler && most > 0; --most) {
      if (begins_to_handle(*handler) && reaches(Aim::kRaise, *handler)) {
        return true;
      }
      handler = handler_of(*handler);
    }
    return false;
  }

 private:
  enum class Aim : unsigned char { kCycle, kRaise };

  static const unsigned char* bytes_of(PyObject* bytes) noexcept {
    return reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes));
  }

  std::optional<std::size_t> handler_of(std::size_t node) const noexcept {
    for (const unsigned char* entry = table_; entry < table_end_;) {
      const std::size_t begin = number(entry);
      const std::size_t length = number(entry);
      const std::size_t target = number(entry);
      number(entry);  // how deep the value stack is there, and whether it gets the instruction
      if (begin <= node && node < begin + length) {
        return target;
      }
    }
    return std::nullopt;
  }
  // Six bits a byte, the highest first; bit 6 says that more follow.
  std::size_t number(const unsigned char*& at) const noexcept {
    std::size_t result = 0;
    while (at < table_end_) {
      const unsigned char byte = *at++;
      result = (result << 6) | (byte & 0x3f);
      if ((byte & 0x40) == 0) {
        break;
      }
    }
    return result;
  }
  // Not the clean-up when an except clause itself raises.
  bool begins_to_handle(std::size_t node) const noexcept {
    return node < size_ && opcode(node) == PUSH_EXC_INFO;
  }

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
        const Successors next = successors(node, aim);
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

  Successors successors(std::size_t node, Aim aim) const noexcept {
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

      case FOR_ITER:
      case SEND:
        if (aim == Aim::kRaise) {
          return {.count = 2, .nodes = {next, next + argument}};
        }
        [[fallthrough]];  // out of the loop or the wait: taken to come to that
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
  const unsigned char* table_;
  const unsigned char* table_end_;
};

// The answer to a question about the flow from where a frame is; `otherwise` if there is no memory.
bool ask(PyFrameObject* frame, bool (Flow::*question)(std::size_t) const noexcept,
         bool otherwise) noexcept {
  const int offset = PyFrame_GetLasti(frame);
  PyCodeObject* const code = PyFrame_GetCode(frame);
  PyObject* const bytes = PyCode_GetCode(code);
  bool answer = otherwise;
  if (bytes == nullptr) {
    PyErr_Clear();
  } else {
    const Flow flow(bytes, code->co_exceptiontable);
    answer = offset >= 0 && (flow.*question)(static_cast<std::size_t>(offset) / 2);
  }
  Py_XDECREF(bytes);
  Py_DECREF(code);
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
    found = ask(frame, &Flow::has_cycle_from, true);
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
  bool cleans_up = false;
  while (frame != nullptr && frame != handler && !cleans_up) {
    cleans_up = ask(frame, &Flow::cleans_up_after, true);
    frame = step_out(frame);
  }
  if (frame == nullptr || cleans_up || !ask(frame, &Flow::ends_handling_from, false)) {
    Py_XDECREF(frame);
    return false;
  }
  return has_loop_ahead(frame);
}

}  // namespace greenlet::cpython
