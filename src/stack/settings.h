// Process-wide settings. Each is an atomic: any thread may call these functions.
#pragma once

#include <atomic>
#include <cstddef>

#include "platform/memory.h"

namespace greenlet::stack {

// What set_default_size() accepts. Where space is short, regions become smaller down to kMinSize.
inline constexpr std::size_t kMinSize = std::size_t{256} << 10;
inline constexpr std::size_t kMaxSize = std::size_t{1} << 30;
// What a greenlet gets in a thread whose own stack is smaller: what threads usually have. With 32
// bits every greenlet gets 1 MiB, as much as CPython 3.11 needs at the usual recursion limit. Then
// thousands of them fit.
inline constexpr std::size_t kUsualSize = std::size_t{platform::kShortOfAddresses ? 1 : 8} << 20;

// The bytes of C stack that a region has at least, unless space is short. Either chosen for the
// process, or else the size of the calling thread's own stack, and no less than kUsualSize.
std::size_t default_size() noexcept;
std::size_t chosen_size() noexcept;                 // zero if nothing was chosen
bool set_default_size(std::size_t bytes) noexcept;  // rounded up to pages; false outside [min, max]
void unset_default_size() noexcept;
std::size_t pool_bound() noexcept;  // regions a thread's pool keeps at most
void set_pool_bound(std::size_t regions) noexcept;
// Reads a size as people write it: bytes, or with a suffix K, M or G. False if it is none.
bool parse_size(const char* text, std::size_t& bytes) noexcept;

// The size of the calling thread's own stack, in whole MiB and at most kMaxSize (with 32 bits, at
// most kUsualSize); zero if the stack has no limit.
std::size_t thread_stack_size() noexcept;

namespace detail {
// Every acquire and release reads this, and hardly anything writes it. On a cache line of its own,
// so that no thread's writes to something else take the line away.
struct alignas(64) Settings {
  std::atomic<std::size_t> chosen_size{0};
  std::atomic<std::size_t> pool_bound{1024};
};
inline constinit Settings settings;
}  // namespace detail

inline std::size_t chosen_size() noexcept {
  return detail::settings.chosen_size.load(std::memory_order_relaxed);
}
inline std::size_t pool_bound() noexcept {
  return detail::settings.pool_bound.load(std::memory_order_relaxed);
}

}  // namespace greenlet::stack
