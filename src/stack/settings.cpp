// The process-wide settings: the default size of stacks, and how many a pool keeps.
#include "stack/settings.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include "platform/memory.h"
#include "platform/thread.h"
#include "stack/layout.h"

namespace greenlet::stack {

std::size_t thread_stack_size() noexcept {
  constexpr std::size_t kMegabyte = std::size_t{1} << 20;
  constexpr std::size_t kMost = platform::kShortOfAddresses ? kUsualSize : kMaxSize;
  // The system may leave out the guard of the thread's stack: a page or two.
  return round_up(std::min(platform::thread_stack_bytes(), kMost), kMegabyte);
}

std::size_t default_size() noexcept {
  const std::size_t chosen = chosen_size();
  return chosen != 0 ? chosen : std::max(thread_stack_size(), kUsualSize);
}

bool set_default_size(std::size_t bytes) noexcept {
  if (bytes < kMinSize || bytes > kMaxSize) {
    return false;
  }
  detail::settings.chosen_size.store(round_up(bytes, platform::kPageSize),
                                     std::memory_order_relaxed);
  return true;
}

void unset_default_size() noexcept {
  detail::settings.chosen_size.store(0, std::memory_order_relaxed);
}

bool parse_size(const char* text, std::size_t& bytes) noexcept {
  const std::string_view all(text);
  const char* const end = all.data() + all.size();
  std::size_t number = 0;
  const auto [rest, error] = std::from_chars(text, end, number);
  unsigned shift = 0;
  if (const std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
      suffix == "K" || suffix == "k") {
    shift = 10;
  } else if (suffix == "M" || suffix == "m") {
    shift = 20;
  } else if (suffix == "G" || suffix == "g") {
    shift = 30;
  } else if (!suffix.empty()) {
    return false;
  }
  if (error != std::errc{} || number > (~std::size_t{0} >> shift)) {
    return false;
  }
  bytes = number << shift;
  return true;
}

void set_pool_bound(std::size_t regions) noexcept {
  detail::settings.pool_bound.store(regions, std::memory_order_relaxed);
}

}  // namespace greenlet::stack
