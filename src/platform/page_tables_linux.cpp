// Whether Linux gives page tables back: gives_back_page_tables() of memory.h.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string_view>

#include "platform/memory.h"

namespace greenlet::platform {
namespace {

// KiB of page tables of this process; -1 if that is not known.
long page_table_kib() noexcept {
  constexpr std::string_view kKey = "VmPTE:";
  std::array<char, 8192> text;
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return -1;
  }
  const ssize_t length = read(file, text.data(), text.size());
  close(file);
  const std::string_view all(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  std::size_t at = all.find(kKey);
  if (at == std::string_view::npos) {
    return -1;
  }
  at = all.find_first_not_of(" \t", at + kKey.size());
  long kib = 0;
  for (; at < all.size() && all[at] >= '0' && all[at] <= '9'; ++at) {
    kib = kib * 10 + (all[at] - '0');
  }
  return kib;
}

// Makes some page tables, with a guard each that it removes again, and drops what they reach.
bool try_to_give_back_page_tables() noexcept {
  constexpr std::size_t kTables = 16;
  const std::size_t reach = kPageSize / sizeof(void*) * kPageSize;
  bool locks = false;
  std::byte* const mapping = map(kTables * reach, reach, locks);
  if (mapping == nullptr) {
    return false;
  }
  bool works = !locks;
  std::array<Range, kTables> guards;
  std::array<Range, kTables> tables;
  for (std::size_t i = 0; works && i < kTables; ++i) {
    std::byte* const begin = mapping + i * reach;
    begin[0] = std::byte{1};
    tables[i] = {.begin = begin, .end = begin + reach};
    guards[i] = {.begin = begin + kPageSize, .end = begin + 2 * kPageSize};
    works = advise_guard(guards[i]);
  }
  if (works) {
    const long with_tables = page_table_kib();
    remove_guards(guards.data(), kTables);
    drop(tables.data(), kTables);
    const long without = page_table_kib();
    const auto expected = static_cast<long>(kTables * kPageSize / 1024 / 2);
    works = without >= 0 && with_tables - without >= expected;
  }
  unmap({mapping, mapping + kTables * reach});
  return works;
}

}  // namespace

bool gives_back_page_tables() noexcept {
  enum Known : std::uint8_t { kUntried, kYes, kNo };
  static constinit std::atomic<Known> known{kUntried};
  Known now = known.load(std::memory_order_relaxed);
  if (now == kUntried) {
    now = try_to_give_back_page_tables() ? kYes : kNo;
    known.store(now, std::memory_order_relaxed);
  }
  return now == kYes;
}

}  // namespace greenlet::platform
