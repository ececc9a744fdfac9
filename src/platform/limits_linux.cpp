// The limits of the process and of the machine on Linux: getrlimit() and files of /proc.
#include "platform/limits.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <cstdint>
#include <string_view>

#include "platform/memory.h"
#include "platform/testing.h"

namespace greenlet::platform {
namespace {

// Where address space is limited, stacks leave this much to the rest of the program: without it the
// program would fail at its next malloc().
constexpr std::size_t kHeadroomBytes = std::size_t{32} << 20;
// Where commitment is limited, stacks leave 1/kCommitHeadroomPart of what the machine may commit.
constexpr std::size_t kCommitHeadroomPart = 16;

// The machine's settings are read again after this many looks. The first look does not read them:
// that takes longer than mapping the first batch, which is small.
constexpr unsigned kLooksBetween = 32;

// The beginning of a file of /proc; empty where it cannot be read.
template <std::size_t Bytes>
class ProcFile {
 public:
  explicit ProcFile(const char* path) noexcept {
    if (const int file = open(path, O_RDONLY | O_CLOEXEC); file >= 0) {
      const ssize_t length = read(file, text_.data(), text_.size());
      length_ = length > 0 ? static_cast<std::size_t>(length) : 0;
      close(file);
    }
  }
  // The number with this index (0 is the first) behind `label`; `otherwise` if there is none.
  std::size_t number(std::string_view label, std::size_t index,
                     std::size_t otherwise) const noexcept {
    const std::string_view text(text_.data(), length_);
    std::size_t at = text.find(label);
    if (at == std::string_view::npos) {
      return otherwise;
    }
    at += label.size();
    for (;; --index) {
      while (at < text.size() && (text[at] < '0' || text[at] > '9')) {
        ++at;
      }
      std::size_t value = otherwise;
      // Not strtoull(): with the headers of glibc 2.38 that is a function which older ones lack.
      at = static_cast<std::size_t>(
          std::from_chars(text.data() + at, text.data() + text.size(), value).ptr - text.data());
      if (index == 0) {
        return value;
      }
    }
  }
  // The first number behind `label` is one of KiB: in bytes, as many as a std::size_t can say.
  std::size_t kilobytes(std::string_view label) const noexcept {
    return std::min(number(label, 0, 0), ~std::size_t{0} >> 10) << 10;
  }

 private:
  std::array<char, Bytes> text_;
  std::size_t length_ = 0;
};

constexpr std::size_t minus(std::size_t from, std::size_t what) noexcept {
  return from > what ? from - what : 0;
}

// A limit may be more than a std::size_t can say: with 32 bits, rlim_t may have 64.
constexpr std::size_t bytes_of(rlim_t limit) noexcept {
  return static_cast<std::size_t>(std::min<std::uint64_t>(limit, SIZE_MAX));
}

void consider(Room& room, std::size_t left, Limit limit) noexcept {
  if (left < room.left) {
    room = {.left = left, .limit = limit};
  }
}

bool commits_strictly(bool carefully) noexcept {
  static constinit std::atomic<bool> strict{false};
  static constinit std::atomic<unsigned> looks{kLooksBetween - 1};
  if (looks.fetch_add(1, std::memory_order_relaxed) % kLooksBetween == 0 || carefully) {
    const ProcFile<16> mode("/proc/sys/vm/overcommit_memory");
    strict.store(mode.number("", 0, 0) == 2, std::memory_order_relaxed);
  }
  return strict.load(std::memory_order_relaxed);
}

// What the kernel lets an ordinary process commit (__vm_enough_memory()). It lets root commit a
// little more.
std::size_t commit_left(std::size_t virtual_bytes) noexcept {
  const ProcFile<4096> memory("/proc/meminfo");
  const std::size_t limit = memory.kilobytes("CommitLimit:");
  const std::size_t committed = memory.kilobytes("Committed_AS:");
  constexpr std::size_t kAdminReserve = std::size_t{8} << 20;
  constexpr std::size_t kUserReserve = std::size_t{128} << 20;
  const std::size_t spared = std::max(kHeadroomBytes, limit / kCommitHeadroomPart) + kAdminReserve +
                             std::min(virtual_bytes / 32, kUserReserve);
  return minus(limit, committed + spared);
}

}  // namespace

Room find_room(bool carefully) noexcept {
  Room room;
  rlimit space{};
  rlimit data{};
  const bool has_space = getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY;
  const bool has_data = getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_cur != RLIM_INFINITY;
  const bool strict = commits_strictly(carefully);
  if (!has_space && !has_data && !strict) [[likely]] {
    return room;
  }
  // In pages. The first number is all address space, the sixth what is writable and private.
  const ProcFile<128> sizes("/proc/self/statm");
  const std::size_t virtual_bytes = sizes.number("", 0, 0) * kPageSize;
  if (has_space) {
    consider(room, minus(bytes_of(space.rlim_cur), virtual_bytes + kHeadroomBytes),
             Limit::kAddressSpace);
  }
  if (has_data) {
    const std::size_t data_bytes = sizes.number("", 5, 0) * kPageSize;
    consider(room, minus(bytes_of(data.rlim_cur), data_bytes + kHeadroomBytes), Limit::kData);
  }
  if (strict) {
    consider(room, commit_left(virtual_bytes), Limit::kCommit);
  }
  return room;
}

std::size_t address_space() noexcept {
  if (const std::size_t forced = for_tests::switches.address_space.load(); forced != 0) {
    return forced;
  }
  if constexpr (kShortOfAddresses) {
    return SIZE_MAX;  // the kernel keeps 1 GiB of them on some systems
  }
  // The stacks of threads and of greenlets lie at the upper end of the address space, because the
  // kernel maps downwards.
  return std::bit_ceil(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
}

std::size_t mapping_limit() noexcept {
  if (const std::size_t forced = for_tests::switches.mapping_limit.load(); forced != 0) {
    return forced;
  }
  // Two threads that are the first at the same time both find it out.
  static constinit std::atomic<std::size_t> limit{0};
  if (limit.load(std::memory_order_relaxed) == 0) {
    const ProcFile<32> file("/proc/sys/vm/max_map_count");
    const std::size_t count = file.number("", 0, 65530);  // the kernel's default
    limit.store(std::max(count - count / 16, std::size_t{1}), std::memory_order_relaxed);
  }
  return limit.load(std::memory_order_relaxed);
}

bool mappings_exhausted() noexcept {
  const int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  std::array<char, 4096> text;
  std::size_t lines = 0;
  for (ssize_t got; (got = read(file, text.data(), text.size())) > 0;) {
    lines += static_cast<std::size_t>(std::count(text.data(), text.data() + got, '\n'));
  }
  close(file);
  return lines >= mapping_limit();
}

}  // namespace greenlet::platform
