#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <utility>

#include "layout.h"
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
    // Fails only for locked memory (mlockall), where keeping the pages is what was asked for.
    madvise(begin, static_cast<std::size_t>(end - begin), MADV_DONTNEED);
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

std::byte* map_bytes(std::size_t bytes, std::size_t headroom) noexcept {
  const std::size_t largest = for_tests::switches.largest_mapping.load();
  if (largest != 0 && bytes > largest) {
    return nullptr;
  }
  void* address = mmap(nullptr, headroom + bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return nullptr;
  }
  auto* base = static_cast<std::byte*>(address);
  if (headroom != 0) {
    // From the lower end, so that the next mapping, placed just below, merges with this one.
    munmap(base, headroom);
    base += headroom;
  }
  // Else the kernel may back 2 MiB for the few bytes that a small greenlet touches. Kernels
  // without huge pages refuse, which is as good.
  madvise(base, bytes, MADV_NOHUGEPAGE);
  return base;
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
  return madvise(guard.begin, guard.bytes, kMadvGuardInstall) == 0;
}

std::size_t mapping_limit() noexcept {
  if (const std::size_t forced = for_tests::switches.mapping_limit.load(); forced != 0) {
    return forced;
  }
  // Found out twice, if two threads are the first at once.
  static constinit std::atomic<std::size_t> limit{0};
  if (limit.load(std::memory_order_relaxed) == 0) {
    std::size_t count = 65530;  // the kernel's default, where /proc cannot be read
    if (const int file = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC); file >= 0) {
      std::array<char, 32> text{};
      // Not strtoull(): with the headers of glibc 2.38 that is a function which older ones lack.
      if (const ssize_t length = read(file, text.data(), text.size()); length > 0) {
        std::from_chars(text.data(), text.data() + length, count);
      }
      close(file);
    }
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
