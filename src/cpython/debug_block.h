// The format of the debug table: blocks of named numbers in the section `.greenlet_debug` of the
// extension module, by which a tool finds the greenlets in the memory of a process or in a core
// file, without the help of that process. docs/internals/debug-table.md explains how to read it.
//
// The section lies in writable memory, because core files contain that, and two words of it are
// relocated. Nothing in the process ever reads or writes it. The values are constants of this
// build: the compiler takes them from the headers that the rest is compiled with.
#pragma once

#include <Python.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "platform/debug_section.h"  // IWYU pragma: export

namespace greenlet::cpython {

// One number and its name. What the number is follows from the name: an offset in a structure, a
// size, a mask of bits, a constant, or an address. If a structure lacks a field in this version of
// CPython, there is no entry with its name.
struct DebugEntry {
  char name[32];  // ends with a zero byte
  union {
    std::int64_t number;
    const void* address;
    decltype(PyASCIIObject::state) string_state;  // a mask: all bits of one of its bit fields
  } value;
};

// What a tool looks for: in the section of that name, or at addresses that are multiples of 16 in
// the writable memory of the extension module. There are several blocks, in any order; a tool uses
// the entries of all of them. Nothing refers to a block, so the compiler and the linker would drop
// it: its variable has the attributes used (for LTO) and retain (for --gc-sections).
template <std::size_t N>
struct alignas(16) DebugBlock {
  // Another version is another format, or a name with another meaning. New names do not change it.
  static constexpr std::uint32_t kVersion = 1;

  constexpr DebugBlock(const void* address, const DebugEntry (&all)[N]) noexcept : self(address) {
    std::copy(std::begin(all), std::end(all), entries);
  }

  char magic[16] = "greenlet debug";
  std::uint32_t version = kVersion;
  std::uint32_t bytes = sizeof(DebugBlock);  // of the block
  std::uint32_t first = offsetof(DebugBlock, entries);
  std::uint32_t entry_bytes = sizeof(DebugEntry);
  const void* self;  // the address of this block; null in the file
  char greenlet_version[16] = GREENLET_VERSION_STRING;
  std::uint64_t count = N;
  DebugEntry entries[N] = {};
};

}  // namespace greenlet::cpython
