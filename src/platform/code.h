// Which machine code of the process is known. The contract; code_linux.cpp implements it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::platform {

// Looks at memory for addresses of machine code. Code is known if it belongs to the file of one of
// the `known` addresses, to the C library or its loader, or to a file that has been allowed. All
// other code is foreign: of other libraries, and code without a file, which a JIT compiler has
// made.
//
// Any thread may use it. A port that cannot tell refuses everything.
class ForeignCode {
 public:
  // How old the list of the process's code may be that a look uses, in nanoseconds.
  static constexpr std::uint64_t kNew = 0;
  static constexpr std::uint64_t kRecent = 10'000'000;

  // True if no word of [begin, end), both aligned, is an address of foreign code. A word that only
  // looks like one counts as one. One lock, and some system calls if the list is too old.
  static bool is_absent(const std::byte* begin, const std::byte* end, const void* const* known,
                        std::size_t known_count, std::uint64_t may_be_old) noexcept;

  // Allows files, by a part of their path: "/gevent/_gevent_c", or "/package/module." with the
  // point before what the file name ends in. For good. False if there is no memory.
  static bool allow(const char* part_of_path) noexcept;
};

}  // namespace greenlet::platform
