// Stack regions: reserving, guarding, pooling and trimming the address space greenlets run on.
// Nothing here knows Python; who runs on a region and when it may be given back is core's business.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace greenlet::stack {

// Why no region could be had. Core turns it into a MemoryError that names the limit.
enum class Failure : std::uint8_t {
  kNone,
  kAddressSpace,  // mmap failed, and no limit that is known explains it
  kSpaceLimit,    // RLIMIT_AS
  kData,          // RLIMIT_DATA
  kCommit,        // strict overcommit (vm.overcommit_memory=2)
  kMappings,      // mprotect or mmap failed for want of mappings: vm.max_map_count
  kGuard,         // the guard could not be set for another reason
};

// The text for a MemoryError: which limit was hit and what to do about it.
const char* describe(Failure failure) noexcept;

// What set_default_size accepts. The smallest is also where falling back to smaller regions ends.
inline constexpr std::size_t kMinSize = std::size_t{256} << 10;
inline constexpr std::size_t kMaxSize = std::size_t{1} << 30;
// What a greenlet gets in a thread whose own stack is smaller: what threads usually have.
inline constexpr std::size_t kUsualSize = std::size_t{8} << 20;

// Bytes of the page that holds the boundary which belong to the C stack (for pages of 4 KiB, in
// proportion for larger ones); the rest is the data area's beginning. A greenlet whose C frames and
// Python frames fit in their shares touches this one page in all.
inline constexpr std::size_t kStackShareOfBoundaryPage = 3072;

struct Batch;  // the mapping a region was cut from (stack.cpp)
class Trimmer;

// A stack of its own: [guard | C stack, grows down | boundary | data area, grows up].
// A plain handle; whoever holds it owns the region until it is given back to a Pool.
struct Region {
  std::byte* low = nullptr;       // lowest usable byte of the C stack, just above the guard
  std::byte* boundary = nullptr;  // 16-byte aligned, inside a page; C stack below, data area above
  std::byte* high = nullptr;      // end of the data area
  Batch* batch = nullptr;

  explicit operator bool() const noexcept { return low != nullptr; }
  std::size_t stack_bytes() const noexcept { return static_cast<std::size_t>(boundary - low); }
  std::size_t data_bytes() const noexcept { return static_cast<std::size_t>(high - boundary); }
};

// The region, of all that there are, in which `address` lies on the C stack; empty if in none.
// Takes the lock of all regions and goes through their batches.
Region region_at(const void* address) noexcept;

// Process-wide settings; each is an atomic, callable from any thread.
//
// The bytes of C stack, at least, that regions are asked for with: as chosen for the process, or,
// if nothing was, by the calling thread's own stack: no less than that has, nor than 8 MiB.
std::size_t default_size() noexcept;
std::size_t chosen_size() noexcept;                 // zero if nothing was chosen
bool set_default_size(std::size_t bytes) noexcept;  // rounded up to pages; false outside [min, max]
void unset_default_size() noexcept;
std::size_t pool_bound() noexcept;  // regions a thread's pool keeps at most
void set_pool_bound(std::size_t regions) noexcept;
// Reads a size as people write it: bytes, or with a suffix K, M or G. False if it is none.
bool parse_size(const char* text, std::size_t& bytes) noexcept;

namespace detail {
// Read by every acquire and release and hardly ever written: on a cache line of its own, so that
// no thread's writes to something else take it away.
struct alignas(64) Settings {
  std::atomic<std::size_t> chosen_size{0};
  std::atomic<std::size_t> pool_bound{1024};
};
inline constinit Settings settings;
class Reserve;
}  // namespace detail

inline std::size_t chosen_size() noexcept {
  return detail::settings.chosen_size.load(std::memory_order_relaxed);
}
inline std::size_t pool_bound() noexcept {
  return detail::settings.pool_bound.load(std::memory_order_relaxed);
}

// The regions one thread keeps for reuse, last in first out. Touched by its thread only, save
// `in_use_`, which statistics() reads from any thread, and the links, which the reserve's mutex
// protects. May be a thread_local or a member of something that lives as long as the thread.
//
// All pools together hold no more than a budget of memory, and each a little in any case. So where
// greenlets go deep, pools are small.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();  // gives everything back to the process-wide reserve

  // A region of the current default size (smaller where address space is short), or an empty one,
  // in which case `failure` says why.
  Region acquire(Failure& failure) noexcept;
  // The same for a size of its own.
  Region acquire(std::size_t size, Failure& failure) noexcept;
  // Takes back a region nobody runs on any more. Pages that deep calls touched are given back
  // to the kernel. Never fails; beyond what the pool may keep, regions go back to the reserve.
  void release(Region region) noexcept;

  // To be called about once a second, if anything happens: gives back to the reserve what was not
  // needed since the last call, and the memory of the rest that was not needed.
  void lap() noexcept;
  // Gives everything back to the reserve now. What that saved is added to the trimmer's count.
  void trim(Trimmer& trimmer) noexcept;

  // Before the first use.
  void join(const void* family) noexcept { family_ = family; }

 private:
  friend class detail::Reserve;

  Region acquire_slowly(Failure& failure) noexcept;
  void release_slowly(const Region& region) noexcept;
  void adopt_size() noexcept;
  void look_at_thread() noexcept;
  bool make_room(std::size_t entries) noexcept;
  void give_back_oldest(std::size_t regions) noexcept;
  std::size_t room_for(std::size_t entries) noexcept;
  std::size_t allowed() const noexcept;
  void return_budget() noexcept;
  void check(const Region& region) noexcept;
  void count_in_use(std::size_t change) noexcept {
    // Only the owner writes: a plain addition, atomic for the readers' sake.
    in_use_.store(in_use_.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }

  Region* entries_ = nullptr;  // [0, count_), the last one released on top
  std::size_t count_ = 0;
  std::size_t capacity_ = 0;
  std::size_t room_ = 0;     // entries that fit in and may be kept
  std::size_t drawn_ = 0;    // bytes of the budget of all pools
  std::size_t pages_ = 1;    // that an entry holds in memory, going by samples
  std::size_t settled_ = 0;  // entries below this index were trimmed, or there at the last lap
  std::size_t lowest_ = 0;   // min(this, settled_) entries were not needed since the last lap
  static constexpr std::size_t kUnknown = ~std::size_t{0};
  std::size_t chosen_ = kUnknown;  // chosen_size() as it was when size_ was found
  std::size_t size_ = 0;           // what the entries were asked for with
  std::size_t thread_bytes_ = 0;   // of the thread's own stack, once that is known
  std::size_t stack_bytes_ = 0;    // what most regions of that size have, and a few others
  std::uint32_t until_check_ = 1;  // releases until one is checked for deep pages
  std::uint32_t check_interval_ = 1;
  std::uint32_t refill_ = 1;  // regions to take from the reserve next time
  bool registered_ = false;
  const void* family_ = nullptr;        // see empty_pools()
  std::atomic<std::size_t> in_use_{0};  // acquired minus released here; wraps, the sum is right
  Pool* previous_ = nullptr;
  Pool* next_ = nullptr;
};

inline Region Pool::acquire(Failure& failure) noexcept {
  if (count_ != 0 && chosen_ == chosen_size()) [[likely]] {
    failure = Failure::kNone;
    count_in_use(1);
    --count_;
    if (settled_ > count_) {
      settled_ = count_;
    }
    return entries_[count_];
  }
  return acquire_slowly(failure);
}

inline void Pool::release(Region region) noexcept {
  if (count_ < room_ && count_ < pool_bound() && chosen_ == chosen_size() &&
      region.stack_bytes() == stack_bytes_ && until_check_ != 1) [[likely]] {
    --until_check_;
    count_in_use(static_cast<std::size_t>(-1));
    entries_[count_++] = region;
    return;
  }
  release_slowly(region);
}

// Gives back what the pools of one family keep, whichever threads they belong to. None of them may
// be in use meanwhile. For the moment when a region cannot be had.
void empty_pools(const void* family) noexcept;

struct Statistics {
  std::size_t reserved;  // regions mapped, whoever has them
  std::size_t in_use;    // handed out by acquire and not yet released
  std::size_t pooled;    // reserved and not in use (thread pools and the process-wide reserve)
};
// Adds up what the threads count: no more than a few words are read for each.
Statistics statistics() noexcept;
// Bytes of all regions that are backed by memory (mincore); slow. About right while other threads
// map and unmap; zero where there is no memory to find out.
std::size_t resident_bytes() noexcept;

// Unmaps what no pool has and nobody uses, as far as whole mappings are free.
void trim_reserve() noexcept;

}  // namespace greenlet::stack
