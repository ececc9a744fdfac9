// Which machine code of the process is known. The contract; code_linux.cpp implements it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace greenlet::platform {

// An address of machine code, and how the name of its file begins, perhaps after "lib". It is known
// only if both fit: a program may have linked the same code into a file with much else.
struct KnownCode {
  const void* address;
  const char* name;
};

// Looks at memory for addresses of machine code. Code is known if it is in one mapping with known
// code, or belongs to the C library, its loader, or a file that has been allowed. All other code is
// foreign: of other libraries, and code without a file, which a JIT compiler has made.
//
// Any thread may use it. A port that cannot tell refuses everything.
class ForeignCode {
 public:
  // How old the list of the process's code may be that a look uses, in nanoseconds.
  static constexpr std::uint64_t kNew = 0;
  static constexpr std::uint64_t kRecent = 10'000'000;

  // True if no word of [begin, end), both aligned, is an address of foreign code. A word that only
  // looks like one counts as one. One lock, and some system calls if the list is too old.
  static bool is_absent(const std::byte* begin, const std::byte* end,
                        std::span<const KnownCode> known, std::uint64_t may_be_old) noexcept;
  // Whether is_absent() can be true at all: the system lists the code of the process, and each of
  // the known addresses is in a file that fits.
  static bool can_tell(std::span<const KnownCode> known) noexcept;

  // Allows files, by a part of their path that reaches into the file name: "/gevent/_gevent_c", or
  // "/package/module." with the point before what the file name ends in. For good. False if there
  // is no memory.
  static bool allow(const char* part_of_path) noexcept;
};

}  // namespace greenlet::platform
