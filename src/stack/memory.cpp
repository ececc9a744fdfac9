#include "memory.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>

#include "layout.h"
#include "system.h"
#include "testing.h"

namespace greenlet::stack {
namespace {

// Linux 6.13; older C libraries lack the name.
constexpr int kMadvGuardInstall = 102;
// Linux 5.14.
constexpr int kMadvPopulateWrite = 23;
// Linux 6.14: the calling process, where a file descriptor of a process is expected.
constexpr int kPidfdSelf = -10000;
constexpr long kSysProcessMadvise = 440;  // on every architecture
// Linux 5.17.
constexpr int kPrSetVma = 0x53564d41;
constexpr unsigned long kPrSetVmaAnonName = 0;
// Linux 5.18: MADV_DONTNEED for memory that is locked, too.
constexpr int kMadvDontneedLocked = 24;
// Linux 4.4.
constexpr unsigned kMlockOnfault = 1;
#ifdef __x86_64__
constexpr long kSysMlock2 = 325;
#else
constexpr long kSysMlock2 = 284;
#endif

// Where address space is limited, this much is left to the rest of the program: having it fail at
// its next malloc would be no service. And this part of what may be committed on the machine.
constexpr std::size_t kHeadroomBytes = std::size_t{32} << 20;
constexpr std::size_t kCommitHeadroomPart = 16;

// The machine's settings are read again after so many looks. Not at the first: reading a file takes
// longer than mapping the first batch, which is small.
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
  // The number behind `label`, or the `index`-th one behind it; `otherwise` if there is none.
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

 private:
  std::array<char, Bytes> text_;
  std::size_t length_ = 0;
};

constexpr std::size_t minus(std::size_t from, std::size_t what) noexcept {
  return from > what ? from - what : 0;
}

void consider(Room& room, std::size_t left, Failure limit) noexcept {
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

// What the kernel lets an ordinary process commit (__vm_enough_memory()), which is a little less
// than it lets root.
std::size_t commit_left(std::size_t virtual_bytes) noexcept {
  const ProcFile<4096> memory("/proc/meminfo");
  const std::size_t limit = memory.number("CommitLimit:", 0, 0) << 10;
  const std::size_t committed = memory.number("Committed_AS:", 0, 0) << 10;
  constexpr std::size_t kAdminReserve = std::size_t{8} << 20;
  constexpr std::size_t kUserReserve = std::size_t{128} << 20;
  const std::size_t spared = std::max(kHeadroomBytes, limit / kCommitHeadroomPart) + kAdminReserve +
                             std::min(virtual_bytes / 32, kUserReserve);
  return minus(limit, committed + spared);
}

void name_mapping(std::byte* begin, std::size_t bytes) noexcept {
  static constinit std::atomic<bool> works{true};
  // By a system call, too: memray looks at calls of prctl().
  if (works.load(std::memory_order_relaxed) &&
      syscall(SYS_prctl, kPrSetVma, kPrSetVmaAnonName, begin, bytes, "greenlet stacks") != 0) {
    works.store(false, std::memory_order_relaxed);
  }
}

// Whether RLIMIT_MEMLOCK does not hold for the process.
bool locks_without_limit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY) {
    return true;
  }
  // As in linux/capability.h, which not every C library comes with.
  struct Header {
    std::uint32_t version;
    int process;
  } header{.version = 0x20080522, .process = 0};
  struct Set {
    std::uint32_t effective, permitted, inheritable;
  };
  std::array<Set, 2> sets{};
  constexpr unsigned kIpcLock = 14;
  return syscall(SYS_capget, &header, sets.data()) == 0 &&
         (sets[0].effective >> kIpcLock & 1U) != 0;
}

// Address space without access. If the program has what it maps locked in memory, the kernel counts
// all of it as locked at once, and refuses what is more than RLIMIT_MEMLOCK. A mapping that is
// small, not locked any more, and grows is not counted.
void* reserve_bytes(std::size_t bytes) noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const address = system::map(bytes, PROT_NONE, kFlags);
  if (address != MAP_FAILED || errno != EAGAIN) {
    return address;
  }
  void* const seed = system::map(page_size(), PROT_NONE, kFlags);
  if (seed == MAP_FAILED) {
    return MAP_FAILED;
  }
  munlock(seed, page_size());
  void* const grown = system::resize(seed, page_size(), bytes);
  if (grown == MAP_FAILED) {
    const int reason = errno;
    system::unmap(seed, page_size());
    errno = reason;
  }
  return grown;
}

}  // namespace

std::size_t resident_pages(std::byte* begin, std::byte* end) noexcept {
  std::array<unsigned char, 4096> states;
  const std::size_t page = page_size();
  std::size_t resident = 0;
  while (begin < end) {
    const std::size_t pages = std::min(states.size(), static_cast<std::size_t>(end - begin) / page);
    if (mincore(begin, pages * page, states.data()) == 0) {
      for (std::size_t i = 0; i < pages; ++i) {
        resident += states[i] & 1U;
      }
    }
    begin += pages * page;
  }
  return resident;
}

void drop_pages(std::byte* begin, std::byte* end) noexcept {
  if (begin < end) {
    const auto bytes = static_cast<std::size_t>(end - begin);
    if (system::advise(begin, bytes, MADV_DONTNEED) != 0) {
      system::advise(begin, bytes, kMadvDontneedLocked);  // mlockall()
    }
  }
}

void drop_pages(const Trimmer::Range* ranges, std::size_t count) noexcept {
  static constinit std::atomic<bool> works{true};
  if (count > 1 && works.load(std::memory_order_relaxed) &&
      !for_tests::switches.drop_one_by_one.load()) {
    std::array<iovec, kMostAtOnce> pages;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto length = static_cast<std::size_t>(ranges[i].end - ranges[i].begin);
      pages[i] = {.iov_base = ranges[i].begin, .iov_len = length};
      bytes += length;
    }
    const long advised =
        syscall(kSysProcessMadvise, kPidfdSelf, pages.data(), count, MADV_DONTNEED, 0);
    if (std::cmp_equal(advised, bytes)) {
      return;
    }
    works.store(false, std::memory_order_relaxed);  // an older kernel, or locked memory
  }
  for (std::size_t i = 0; i < count; ++i) {
    drop_pages(ranges[i].begin, ranges[i].end);
  }
}

void populate(const Region* regions, std::size_t count) noexcept {
  static constinit std::atomic<bool> works{true};
  if (count < 2 || !works.load(std::memory_order_relaxed)) {
    return;
  }
  std::array<iovec, kMostAtOnce> pages;
  for (std::size_t i = 0; i < count; ++i) {
    pages[i] = {.iov_base = page_of(regions[i].boundary), .iov_len = page_size()};
  }
  if (syscall(kSysProcessMadvise, kPidfdSelf, pages.data(), count, kMadvPopulateWrite, 0) < 0) {
    works.store(false, std::memory_order_relaxed);
  }
}

std::byte* map_bytes(std::size_t bytes, bool& locks) noexcept {
  const std::size_t largest = for_tests::switches.largest_mapping.load();
  if (largest != 0 && bytes > largest) {
    errno = ENOMEM;
    return nullptr;
  }
  // Without access first, for in this moment it may be locked, and what is locked is in memory.
  void* const address = reserve_bytes(bytes);
  if (address == MAP_FAILED) {
    return nullptr;
  }
  auto* const base = static_cast<std::byte*>(address);
  // There is nothing to drop. But this is the advice that the kernel refuses for locked memory, and
  // the cheapest way to find out.
  locks = system::advise(base, page_size(), MADV_DONTNEED) != 0;
  if (locks) {
    munlock(base, bytes);
  }
  if (system::protect(base, bytes, PROT_READ | PROT_WRITE) != 0) {
    const int reason = errno;
    system::unmap(base, bytes);
    errno = reason;
    return nullptr;
  }
  // Else the kernel may back 2 MiB for the few bytes that a small greenlet touches. Kernels
  // without huge pages refuse, which is as good.
  system::advise(base, bytes, MADV_NOHUGEPAGE);
  name_mapping(base, bytes);
  return base;
}

bool unmap_bytes(std::byte* begin, std::size_t bytes) noexcept {
  return system::unmap(begin, bytes) == 0;
}

void lock_on_fault(std::byte* begin, std::size_t bytes) noexcept {
  if (locks_without_limit()) {
    syscall(kSysMlock2, begin, bytes, kMlockOnfault);  // fails before Linux 4.4
  }
}

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
  // In pages: all, ..., (sixth) what is writable and private.
  const ProcFile<128> sizes("/proc/self/statm");
  const std::size_t virtual_bytes = sizes.number("", 0, 0) * page_size();
  if (has_space) {
    consider(room, minus(space.rlim_cur, virtual_bytes + kHeadroomBytes), Failure::kSpaceLimit);
  }
  if (has_data) {
    const std::size_t data_bytes = sizes.number("", 5, 0) * page_size();
    consider(room, minus(data.rlim_cur, data_bytes + kHeadroomBytes), Failure::kData);
  }
  if (strict) {
    consider(room, commit_left(virtual_bytes), Failure::kCommit);
  }
  return room;
}

std::size_t address_space() noexcept {
  if (const std::size_t forced = for_tests::switches.address_space.load(); forced != 0) {
    return forced;
  }
  // Stacks lie at the upper end, those of threads and ours as well: the kernel maps downwards.
  return std::bit_ceil(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
}

bool install_guards(const GuardRange* guards, std::size_t count) noexcept {
  std::array<iovec, kMostAtOnce> ranges;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    ranges[i] = {.iov_base = guards[i].begin, .iov_len = guards[i].bytes};
    bytes += guards[i].bytes;
  }
  const long advised =
      syscall(kSysProcessMadvise, kPidfdSelf, ranges.data(), count, kMadvGuardInstall, 0);
  return std::cmp_equal(advised, bytes);
}

bool install_guard(const GuardRange& guard) noexcept {
  return system::advise(guard.begin, guard.bytes, kMadvGuardInstall) == 0;
}

bool protect_guard(const GuardRange& guard) noexcept {
  return system::protect(guard.begin, guard.bytes, PROT_NONE) == 0;
}

std::size_t mapping_limit() noexcept {
  if (const std::size_t forced = for_tests::switches.mapping_limit.load(); forced != 0) {
    return forced;
  }
  // Found out twice, if two threads are the first at once.
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

}  // namespace greenlet::stack
