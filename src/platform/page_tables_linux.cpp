// Whether Linux gives page tables back: gives_back_page_tables() of memory.h.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string_view>

#include "platform/clock.h"
#include "platform/memory.h"

namespace greenlet::platform {
namespace {

// KiB of page tables of this process; -1 if that cannot be known, -2 if not at this moment.
long page_table_kib() noexcept {
  constexpr std::string_view kKey = "VmPTE:";
  std::array<char, 8192> text;
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -2 : -1;
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

enum class Answer : std::uint8_t { kYes, kNo, kUnknown };

// Makes some page tables, with a guard each that it removes again, and drops what they reach.
Answer try_to_give_back_page_tables() noexcept {
  constexpr std::size_t kTables = 16;
  const std::size_t reach = kPageSize / sizeof(void*) * kPageSize;
  bool locks = false;
  std::byte* const mapping = map(kTables * reach, reach, locks);
  if (mapping == nullptr) {
    return Answer::kUnknown;
  }
  bool works = !locks;
  bool is_known = true;
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
    is_known = with_tables != -2 && without != -2;
    works = with_tables >= 0 && without >= 0 && with_tables - without >= expected;
  }
  unmap({mapping, mapping + kTables * reach});
  return !is_known ? Answer::kUnknown : works ? Answer::kYes : Answer::kNo;
}

}  // namespace

bool gives_back_page_tables() noexcept {
  // During a trial other threads change the same figures. So the first answers "no" do not count.
  // There is some time between trials, because what has disturbed one may last.
  constexpr int kMostTries = 3;
  constexpr std::uint64_t kBetweenTries = 100'000'000;
  static constinit std::atomic<int> tries_left{kMostTries};
  static constinit std::atomic<std::uint64_t> next_try{0};
  static constinit std::atomic<bool> known{false};
  if (known.load(std::memory_order_relaxed)) {
    return true;
  }
  const std::uint64_t now_is = now(Clock::kCoarse);
  if (tries_left.load(std::memory_order_relaxed) > 0 &&
      now_is >= next_try.load(std::memory_order_relaxed)) {
    next_try.store(now_is + kBetweenTries, std::memory_order_relaxed);
    switch (try_to_give_back_page_tables()) {
      case Answer::kYes:
        known.store(true, std::memory_order_relaxed);
        break;
      case Answer::kNo:
        tries_left.fetch_sub(1, std::memory_order_relaxed);
        break;
      case Answer::kUnknown:
        break;
    }
  }
  return known.load(std::memory_order_relaxed);
}

}  // namespace greenlet::platform
