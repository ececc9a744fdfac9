#include "cpython/frame_dump.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "cpython/internals.h"
#include "platform/readable.h"
#include "platform/signal.h"

namespace greenlet::cpython {
namespace {

constexpr std::size_t kMostFrames = 100;  // as faulthandler shows
constexpr Py_ssize_t kMostCharacters = 500;

// Whether an object of this size can be read. In a handler a pointer may be out of date.
bool can_read(const void* address, std::size_t size) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  return begin % alignof(void*) == 0 && begin != 0 && platform::is_readable(address) &&
         platform::is_readable(
             reinterpret_cast<const void*>((begin + size - 1) / alignof(void*) * alignof(void*)));
}

void dump(_PyInterpreterFrame* frame, std::string_view indent, Dump& dump) noexcept {
  for (std::size_t count = 0; frame != nullptr; frame = frame->previous) {
    if (!can_read(frame, sizeof(*frame))) {
      dump.add(indent).add("<a frame that cannot be read>\n");
      return;
    }
    if (is_shim(frame)) {
      continue;
    }
    PyCodeObject* const code = code_of(frame);
    if (!can_read(code, sizeof(*code)) || !PyCode_Check(code)) {
      dump.add(indent).add("<a frame that cannot be read>\n");
      return;
    }
    if (_PyFrame_IsIncomplete(frame)) {
      continue;
    }
    if (++count > kMostFrames) {
      dump.add(indent).add("...\n");
      return;
    }
    dump.add(indent).add("File \"").add_text(code->co_filename).add("\", line ");
    const int line = PyCode_Addr2Line(
        code, static_cast<int>(_PyInterpreterFrame_LASTI(frame) * sizeof(_Py_CODEUNIT)));
    if (line > 0) {
      dump.add(static_cast<std::size_t>(line));
    } else {
      dump.add("?");
    }
    dump.add(" in ").add_text(code->co_qualname).add("\n");
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

Dump& Dump::add_text(PyObject* text) noexcept {
  if (!can_read(text, sizeof(PyASCIIObject)) || !PyUnicode_Check(text) ||
      !PyUnicode_IS_COMPACT(text)) {
    return add("???");
  }
  const Py_ssize_t length = std::min(PyUnicode_GET_LENGTH(text), kMostCharacters);
  const int kind = PyUnicode_KIND(text);
  const void* const data = PyUnicode_DATA(text);
  for (Py_ssize_t i = 0; i < length; ++i) {
    const Py_UCS4 character = PyUnicode_READ(kind, data, i);
    if (character >= ' ' && character < 0x7f) {
      const auto plain = static_cast<char>(character);
      add({&plain, 1});
    } else {
      char digits[12];
      char* const end = std::to_chars(digits, digits + sizeof(digits), character, 16).ptr;
      add("\\u{").add({digits, static_cast<std::size_t>(end - digits)}).add("}");
    }
  }
  return length < PyUnicode_GET_LENGTH(text) ? add("...") : *this;
}

void Dump::flush() noexcept {
  platform::write_all(descriptor_, text_, length_);
  length_ = 0;
}

void dump_suspended(const StackState& stack, std::string_view indent, Dump& text) noexcept {
  dump(stack.innermost(), indent, text);
}

void dump_running(const PyThreadState* tstate, std::string_view indent, Dump& text) noexcept {
  dump(SavedFields::running(tstate), indent, text);
}

}  // namespace greenlet::cpython
