#include "cpython/frame_dump.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>

#include "cpython/internals.h"
#include "platform/readable.h"
#include "platform/signal.h"

namespace greenlet::cpython {
namespace {

template <typename T>
using Copy = platform::ReadableCopy<T>;

constexpr std::size_t kMostFrames = 100;     // as faulthandler shows
constexpr std::size_t kMostSteps = 100'000;  // frames that are being changed may form a cycle
constexpr Py_ssize_t kMostCharacters = 500;

PyCodeObject* code_pointer(_PyInterpreterFrame* frame) noexcept {
#if PY_VERSION_HEX >= 0x030e0000
  // Not by PyStackRef_AsPyObjectBorrow(): debug builds expect a valid reference there.
  return reinterpret_cast<PyCodeObject*>(frame->f_executable.bits &
                                         ~static_cast<std::uintptr_t>(Py_TAG_BITS));
#elif PY_VERSION_HEX >= 0x030d0000
  return reinterpret_cast<PyCodeObject*>(frame->f_executable);
#else
  return frame->f_code;
#endif
}

// The index of the instruction that a frame is at, in code units. Negative if that is not known.
std::ptrdiff_t instruction_index(_PyInterpreterFrame* frame, PyCodeObject* code,
                                 [[maybe_unused]] PyCodeObject* copied_code) noexcept {
#if PY_VERSION_HEX >= 0x030d0000
  const auto at = reinterpret_cast<std::uintptr_t>(frame->instr_ptr);
#else
  const auto at = reinterpret_cast<std::uintptr_t>(frame->prev_instr);
#endif
  auto begin = reinterpret_cast<std::uintptr_t>(code) + offsetof(PyCodeObject, co_code_adaptive);
#ifdef Py_GIL_DISABLED
  // Each thread has a copy of the instructions.
  const auto entries =
      reinterpret_cast<std::uintptr_t>(copied_code->co_tlbc) + offsetof(_PyCodeArray, entries);
  Copy<char*> copied(reinterpret_cast<const void*>(
      entries + static_cast<std::uintptr_t>(frame->tlbc_index) * sizeof(char*)));
  if (frame->tlbc_index < 0 || !copied.is_read) {
    return -1;
  }
  begin = reinterpret_cast<std::uintptr_t>(*copied);
#endif
  return at >= begin ? static_cast<std::ptrdiff_t>((at - begin) / sizeof(_Py_CODEUNIT)) : -1;
}

// Reads a code object's table of lines (Objects/locations.md of CPython, 3.11+), a piece at a time.
class LineTable {
 public:
  // cppcheck-suppress uninitMemberVar  ; only what has been read into piece_ is used
  explicit LineTable(const PyObject* table) noexcept
      : next_(reinterpret_cast<const unsigned char*>(table) + offsetof(PyBytesObject, ob_sval)) {
    Copy<PyVarObject> size(table);
    left_ = size.is_read ? std::clamp<Py_ssize_t>(size->ob_size, 0, kMostBytes) : 0;
  }

  // The line of an instruction; 0 if it has none, or if that is not known.
  int line_of(std::ptrdiff_t index, int first_line) noexcept {
    int line = first_line;
    for (std::ptrdiff_t end = 0; left_ > 0;) {
      const unsigned first = byte();
      const unsigned kind = (first >> 3) & 15;
      end += (first & 7) + 1;
      if (kind == 14) {  // line, end line, columns
        line += signed_number();
        number(), number(), number();
      } else if (kind == 13) {  // line alone
        line += signed_number();
      } else if (kind >= 10 && kind <= 12) {
        line += static_cast<int>(kind - 10);
        byte(), byte();
      } else if (kind < 10) {
        byte();
      }
      if (index < end) {
        return kind == 15 ? 0 : line;
      }
    }
    return 0;
  }

 private:
  static constexpr Py_ssize_t kMostBytes = 1 << 20;

  unsigned byte() noexcept {
    if (at_ == size_) {
      at_ = 0;
      size_ = static_cast<std::size_t>(std::min<Py_ssize_t>(left_, sizeof(piece_)));
      if (size_ == 0 || !platform::copy_readable(piece_, next_, size_)) {
        size_ = 0;
        left_ = 0;
        return 0;
      }
      next_ += size_;
    }
    --left_;
    return piece_[at_++];
  }
  unsigned number() noexcept {
    unsigned value = 0;
    for (unsigned shift = 0; shift < 32; shift += 6) {
      const unsigned each = byte();
      value |= (each & 63) << shift;
      if ((each & 64) == 0) {
        break;
      }
    }
    return value;
  }
  int signed_number() noexcept {
    const unsigned value = number();
    return (value & 1) != 0 ? -static_cast<int>(value >> 1) : static_cast<int>(value >> 1);
  }

  const unsigned char* next_;
  Py_ssize_t left_;  // bytes that byte() has not given
  unsigned char piece_[64];
  std::size_t at_ = 0, size_ = 0;
};

void dump(const _PyInterpreterFrame* address, std::string_view indent, Dump& dump) noexcept {
  std::size_t count = 0;
  for (std::size_t steps = 0; address != nullptr; ++steps) {
    Copy<_PyInterpreterFrame> frame(address);
    if (!frame.is_read || steps == kMostSteps) {
      dump.add(indent).add("<a frame that cannot be read>\n");
      return;
    }
    address = frame->previous;
    if (is_shim(&*frame)) {
      continue;
    }
    PyCodeObject* const code = code_pointer(&*frame);
    Copy<PyCodeObject> copied(code);
    if (!copied.is_read || copied->ob_base.ob_base.ob_type != &PyCode_Type) {
      dump.add(indent).add("<a frame that cannot be read>\n");
      return;
    }
    const auto index = instruction_index(&*frame, code, &*copied);
    if (frame->owner != FRAME_OWNED_BY_GENERATOR && index < copied->_co_firsttraceable) {
      continue;  // incomplete
    }
    if (++count > kMostFrames) {
      dump.add(indent).add("...\n");
      return;
    }
    const int line = LineTable(copied->co_linetable).line_of(index, copied->co_firstlineno);
    dump.add(indent).add("File \"").add_text(copied->co_filename).add("\", line ");
    if (line > 0) {
      dump.add(static_cast<std::size_t>(line));
    } else {
      dump.add("?");
    }
    dump.add(" in ").add_text(copied->co_qualname).add("\n");
  }
}

}  // namespace

Dump& Dump::add(std::string_view text) noexcept {
  for (const char each : text) {
    if (length_ == kSize) {
      flush();
    }
    text_[length_++] = each;
  }
  return *this;
}

Dump& Dump::add(std::size_t number) noexcept {
  char digits[24];
  char* const end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
  return add({digits, static_cast<std::size_t>(end - digits)});
}

Dump& Dump::add_address(const void* address) noexcept {
  char digits[24];
  char* const end =
      std::to_chars(digits, digits + sizeof(digits), reinterpret_cast<std::uintptr_t>(address), 16)
          .ptr;
  return add("0x").add({digits, static_cast<std::size_t>(end - digits)});
}

Dump& Dump::add_text(const PyObject* text) noexcept {
  Copy<PyASCIIObject> copied(text);
  auto* const object = reinterpret_cast<PyObject*>(&*copied);
  if (!copied.is_read || copied->ob_base.ob_type != &PyUnicode_Type ||
      !PyUnicode_IS_COMPACT(object)) {
    return add("???");
  }
  const auto* next =
      reinterpret_cast<const std::byte*>(text) +
      (PyUnicode_IS_COMPACT_ASCII(object) ? sizeof(PyASCIIObject) : sizeof(PyCompactUnicodeObject));
  const auto kind = static_cast<std::size_t>(PyUnicode_KIND(object));
  if (kind != PyUnicode_1BYTE_KIND && kind != PyUnicode_2BYTE_KIND &&
      kind != PyUnicode_4BYTE_KIND) {
    return add("???");  // it is being changed
  }
  const Py_ssize_t length = std::clamp<Py_ssize_t>(copied->length, 0, kMostCharacters);
  for (Py_ssize_t i = 0; i < length; ++i, next += kind) {
    alignas(Py_UCS4) std::byte bytes[sizeof(Py_UCS4)];
    if (!platform::copy_readable(bytes, next, kind)) {
      return add("???");
    }
    const Py_UCS4 character = PyUnicode_READ(static_cast<int>(kind), bytes, 0);
    if (character >= ' ' && character < 0x7f) {
      const auto plain = static_cast<char>(character);
      add({&plain, 1});
    } else {
      char digits[12];
      char* const end = std::to_chars(digits, digits + sizeof(digits), character, 16).ptr;
      add("\\u{").add({digits, static_cast<std::size_t>(end - digits)}).add("}");
    }
  }
  return length < copied->length ? add("...") : *this;
}

void Dump::flush() noexcept {
  platform::write_all(descriptor_, text_, length_);
  length_ = 0;
}

void dump_suspended(const StackState& stack, std::string_view indent, Dump& text) noexcept {
  Copy<_PyInterpreterFrame*> innermost(stack.place_of_innermost());
  dump(innermost.is_read ? *innermost : nullptr, indent, text);
}

void dump_running(const PyThreadState* tstate, std::string_view indent, Dump& text) noexcept {
  Copy<PyThreadState> copied(tstate);
  if (copied.is_read) {
    Copy<_PyInterpreterFrame*> innermost(SavedFields::place_of_running(&*copied));
    dump(innermost.is_read ? *innermost : nullptr, indent, text);
  }
}

}  // namespace greenlet::cpython
