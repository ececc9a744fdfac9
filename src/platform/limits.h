// How much memory the limits of the process, and of the machine, leave for stacks. The contract;
// limits_linux.cpp implements it.
//
// A port may implement all but address_space() as if there were no limit: find_room() returns
// Room{}, mapping_limit() the largest number, mappings_exhausted() false.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::platform {

enum class Limit : std::uint8_t {
  kNone,
  kAddressSpace,  // RLIMIT_AS
  kData,          // RLIMIT_DATA
  kCommit,        // strict overcommit: vm.overcommit_memory=2
};

struct Room {
  static constexpr std::size_t kNoLimit = ~std::size_t{0};
  std::size_t left = kNoLimit;  // bytes that may be mapped; less some for the rest of the program
  Limit limit = Limit::kNone;   // the limit that leaves no more
};

// What may be mapped now. Two system calls if there is no limit; under a limit it reads files of
// /proc. It reads the settings of the machine, which hardly ever change, again in every 32nd call,
// and in each call with `carefully`.
Room find_room(bool carefully) noexcept;

// Bytes that a process can address on this machine: 128 TiB on most 64-bit ones, 512 GiB on some,
// 2 to 4 GiB on 32-bit ones. No system call.
std::size_t address_space() noexcept;

// How many mappings guards may add to the process: the system's limit, less some for others. Reads
// a file once.
std::size_t mapping_limit() noexcept;
// Whether the process has about as many mappings as it may. Reads a line for each of them: slow.
bool mappings_exhausted() noexcept;

}  // namespace greenlet::platform
