// Looking at the process's memory from outside the rooms under test.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "stack/stack.h"

namespace greenlet::tests {

inline std::size_t page_size() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

inline std::byte* page_of(std::byte* address) {
  return address - reinterpret_cast<std::uintptr_t>(address) % page_size();
}

// Bytes of the region that are backed by memory.
inline std::size_t resident_bytes(const stack::Region& region) {
  const auto pages = static_cast<std::size_t>(region.high - region.low) / page_size();
  std::vector<unsigned char> states(pages);
  mincore(region.low, pages * page_size(), states.data());
  std::size_t resident = 0;
  for (const unsigned char state : states) {
    resident += state & 1U;
  }
  return resident * page_size();
}

// Writes one byte into every page from `begin` to `end`.
inline void touch(std::byte* begin, std::byte* end) {
  for (std::byte* page = page_of(begin); page < end; page += page_size()) {
    *const_cast<volatile std::byte*>(page < begin ? begin : page) = std::byte{1};
  }
}

// Touches what a greenlet touches that uses `depth` bytes of C stack.
inline void touch_stack(const stack::Region& region, std::size_t depth) {
  touch(region.boundary - depth, region.boundary);
}

inline std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(maps, line);) {
    ++lines;
  }
  return lines;
}

inline std::size_t max_mappings() {
  std::size_t count = 65530;
  std::ifstream("/proc/sys/vm/max_map_count") >> count;
  return count;
}

// Runs `body(index)` in `count` threads at once and waits for them all.
template <typename Body>
void in_threads(int count, Body body) {
  std::vector<std::thread> threads;
  for (int index = 0; index < count; ++index) {
    threads.emplace_back(body, index);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Sets the process-wide settings back at the end of a test.
class SettingsGuard {
 public:
  SettingsGuard() = default;
  SettingsGuard(const SettingsGuard&) = delete;
  SettingsGuard& operator=(const SettingsGuard&) = delete;
  ~SettingsGuard() {
    if (size_ != 0) {
      stack::set_default_size(size_);
    } else {
      stack::unset_default_size();
    }
    stack::set_pool_bound(bound_);
  }

 private:
  std::size_t size_ = stack::chosen_size();
  std::size_t bound_ = stack::pool_bound();
};

// As many regions of the default size as a test wants, or as all addresses suffice for.
constexpr std::size_t as_far_as_addresses_go(std::size_t regions) {
  return platform::kShortOfAddresses ? std::min<std::size_t>(regions, 4000) : regions;
}

// Regions taken from a pool, all given back at the end.
class Regions {
 public:
  explicit Regions(stack::Pool& pool) : pool_(pool) {}
  Regions(const Regions&) = delete;
  Regions& operator=(const Regions&) = delete;
  ~Regions() { release(); }

  // Whether all `count` could be had; if not, failure() says why.
  bool acquire(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const stack::Region region = pool_.acquire(failure_);
      if (!region) {
        return false;
      }
      regions_.push_back(region);
    }
    return true;
  }
  void release() {
    for (const stack::Region& region : regions_) {
      pool_.release(region);
    }
    regions_.clear();
  }
  const std::vector<stack::Region>& all() const { return regions_; }
  stack::Failure failure() const { return failure_; }

 private:
  stack::Pool& pool_;
  std::vector<stack::Region> regions_;
  stack::Failure failure_ = stack::Failure::kNone;
};

}  // namespace greenlet::tests
