// The slow half of stack.h: mapping batches of regions, guarding them, the process-wide reserve,
// trimming, statistics. What a hit in a thread's pool needs is inline in stack.h.
#include "stack.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "mutex.h"
#include "readable.h"
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

// A frame larger than the guard can step over it unseen, so: more than the one page that a thread
// has. Each page costs the kernel an entry in a page table.
constexpr std::size_t kGuardBytes = std::size_t{16} << 10;
constexpr std::size_t kDataBytes = std::size_t{256} << 10;

// Regions are mapped by the batch: one system call, one bit each in a word.
constexpr std::size_t kBatchRegions = 64;
constexpr std::size_t kBatchBytes = std::size_t{4} << 30;  // fewer regions where they are large
constexpr std::size_t kBatchesAtOnce = 4;                  // in one mapping, where that is little
constexpr std::size_t kManyBatches = 16;                   // beside so many

// See Layout::in_row(): how far each boundary lies behind the last one's place in the reach of its
// page table, and how much C stack the first has there. All that a batch needs must fit.
constexpr std::size_t kDriftPages = 5;
constexpr std::size_t kNearPages = 100;
static_assert(kNearPages + kBatchRegions * kDriftPages + 2 + (kDataBytes + kGuardBytes) / 4096 <=
              512);

// Where address space is short, this much is left to the rest of the program: having it fail at
// its next malloc would be no service.
constexpr std::size_t kHeadroomBytes = std::size_t{32} << 20;

// A batch is unmapped when all its regions are free and the reserve holds this many besides.
constexpr std::size_t kSpareRegions = 256;

// A pool takes up to this many regions from the reserve at once, and gives so many back.
constexpr std::size_t kMostRefill = 64;
static_assert(kMostRefill <= 64);  // a bit each in a word
constexpr std::size_t kFlush = 32;

// Trimming (see Pool::check): what a pooled region may hold on either side of the boundary, how far
// below that a check looks, and how many releases apart checks may become.
constexpr std::size_t kKeepBelow = std::size_t{32} << 10;
constexpr std::size_t kKeepAbove = std::size_t{16} << 10;
constexpr std::size_t kLookBelow = std::size_t{256} << 10;
constexpr std::uint32_t kLongestInterval = 64;

const auto kPageSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
std::size_t page_size() noexcept { return kPageSize; }

std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

std::byte* page_of(std::byte* address) noexcept {
  return address - (reinterpret_cast<std::uintptr_t>(address) & (page_size() - 1));
}

// Bytes whose pages have their entries in one page table, on most machines.
std::size_t page_table_reach() noexcept { return page_size() / sizeof(void*) * page_size(); }

// Where things lie in a region of one size, as offsets from its first byte.
struct Layout {
  std::size_t low;
  std::size_t boundary;
  std::size_t bytes;
  std::size_t lead;  // in the mapping, ahead of the first region

  // As little address space as the size takes. The page that holds the boundary comes on top of it.
  //
  // An odd number of pages in all: the pages that every region touches first (those around the
  // boundary) then spread over all sets of the TLB, which a multiple of a large power of two would
  // put into a few.
  static Layout compact(std::size_t size) noexcept {
    const std::size_t page = page_size();
    Layout layout{};
    layout.low = round_up(kGuardBytes, page);
    layout.boundary = layout.low + size + page / 4096 * kStackShareOfBoundaryPage;
    const std::size_t pages = (layout.low + size + round_up(kDataBytes, page)) / page;
    layout.bytes = (pages | 1) * page;
    return layout;
  }

  // For regions in a row, in a mapping that begins where the reach of a page table does:
  //
  //   reaches     |.........................|.........................|.......
  //   regions          [guard| C stack ....... boundary| data][guard| C stack
  //
  // A page table takes the kernel about as long as a page. A region needs one for its boundary and
  // one for its guard; so the boundary of one region and the guard of the next share theirs. For
  // that a C stack gets what a region lacks to a multiple of the reach, if that is not much, and a
  // few pages more, for the sake of the TLB.
  static Layout in_row(std::size_t size) noexcept {
    Layout layout = compact(size);
    const std::size_t bytes =
        round_up(layout.bytes, page_table_reach()) + kDriftPages * page_size();
    if (bytes - layout.bytes <= layout.bytes / 4) {
      layout.boundary += bytes - layout.bytes;
      layout.bytes = bytes;
      layout.lead = round_up(kDataBytes, page_size()) + (1 + kNearPages) * page_size();
    }
    return layout;
  }

  bool is_row() const noexcept { return lead != 0; }
  std::size_t mapped_bytes(std::size_t regions) const noexcept {
    return round_up(lead + regions * bytes, is_row() ? page_table_reach() : page_size());
  }
};

// Pages of [begin, end) that are backed by memory; both page-aligned.
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

// Has the kernel back the page that each of these touches first: one system call in place of a page
// fault each. A wish only: the first time that it isn't granted is the last that it is asked.
void populate(const Region* regions, std::size_t count) noexcept {
  static constinit std::atomic<bool> works{true};
  if (count < 2 || !works.load(std::memory_order_relaxed)) {
    return;
  }
  std::array<iovec, kMostRefill> pages;
  for (std::size_t i = 0; i < count; ++i) {
    pages[i] = {.iov_base = page_of(regions[i].boundary), .iov_len = page_size()};
  }
  if (syscall(kSysProcessMadvise, kPidfdSelf, pages.data(), count, kMadvPopulateWrite, 0) < 0) {
    works.store(false, std::memory_order_relaxed);
  }
}

// How many mappings the process may have, less some for others (as with kHeadroomBytes).
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

// Whether the process has about as many mappings as it may. Slow where it has many.
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

}  // namespace

// One mapping, cut into regions. A batch whose regions are of another size than what threads ask
// for now hands out none any more and waits for its regions to come back.
struct Batch {
  // Set once, readable by whoever holds a region of the batch.
  std::byte* base;
  Layout layout;
  std::size_t wanted;  // the default size it was mapped for; its regions may be smaller
  std::size_t count;
  bool fallback;  // smaller than wanted, or alone: made where address space was short

  // Protected by the reserve's mutex, as are the links.
  std::uint64_t free;     // regions that nobody has
  std::uint64_t guarded;  // regions whose guard is set; set when first handed out
  std::size_t splits;     // mappings added to the process by guards
  bool available;         // in the list of batches that hand out regions
  Batch* previous;
  Batch* next;
  Batch* previous_available;
  Batch* next_available;

  std::uint64_t all() const noexcept { return ~std::uint64_t{0} >> (kBatchRegions - count); }
  std::byte* mapping() const noexcept { return base - layout.lead; }
  std::size_t mapped_bytes() const noexcept { return layout.mapped_bytes(count); }

  Region region(std::size_t index) noexcept {
    std::byte* begin = base + index * layout.bytes;
    return Region{begin + layout.low, begin + layout.boundary, begin + layout.bytes, this};
  }
  std::size_t index(const Region& region) const noexcept {
    return static_cast<std::size_t>(region.low - base) / layout.bytes;
  }
  std::size_t resident_bytes() const noexcept {
    std::size_t pages = 0;
    for (std::uint64_t rest = guarded; rest != 0; rest &= rest - 1) {
      std::byte* begin = base + static_cast<std::size_t>(std::countr_zero(rest)) * layout.bytes;
      pages += resident_pages(begin + layout.low, begin + layout.bytes);
    }
    return pages * page_size();
  }
};

namespace detail {

// Everything that no thread's pool holds: batches, their free regions, the list of pools. One
// mutex protects it all, and is held across the system calls that map and guard. A region is free,
// or somebody's from take() to give_back(), though not to run on before guard(). Regions in the
// reserve hold no memory. Never destroyed: threads may outlive static destruction.
class Reserve {
 public:
  // Fills `regions` with up to `count` regions for `size`; returns how many. None: `failure`.
  // `unguarded`: a bit for each that has no guard yet.
  std::size_t take(std::size_t size, Region* regions, std::size_t count, std::uint64_t& unguarded,
                   Failure& failure) noexcept {
    const std::lock_guard lock(mutex_);
    unguarded = 0;
    std::size_t taken = 0;
    failure = Failure::kNone;
    Batch* doomed = nullptr;
    while (taken < count) {
      Batch* batch = available_;
      if (batch != nullptr && batch->wanted != size) {
        withdraw(*batch);
        if (batch->free == batch->all()) {
          unlink(*batch);
          batch->next = doomed;
          doomed = batch;
        }
        continue;
      }
      if (batch == nullptr) {
        if (taken != 0) {
          break;
        }
        batch = map(size, failure);
        if (batch == nullptr) {
          break;
        }
      }
      // Guarded ones first: they were used before, so their page tables exist.
      const std::uint64_t ready = batch->free & batch->guarded;
      const auto index =
          static_cast<std::size_t>(std::countr_zero(ready != 0 ? ready : batch->free));
      batch->free &= ~(std::uint64_t{1} << index);
      --free_;
      if (batch->free == 0) {
        withdraw(*batch);
      }
      unguarded |= std::uint64_t{ready == 0} << taken;
      regions[taken++] = batch->region(index);
    }
    unmap(doomed);
    return taken;
  }

  // Sets the guards that take() found missing. Puts those that have one now in front, returns how
  // many, and says why others have not.
  std::size_t guard(Region* regions, std::size_t count, std::uint64_t unguarded,
                    Failure& failure) noexcept {
    if (unguarded == 0) {
      return count;
    }
    const std::lock_guard lock(mutex_);
    if (guard_together(regions, unguarded)) {
      return count;
    }
    std::size_t guarded = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if ((unguarded & std::uint64_t{1} << i) != 0) {
        failure = failure == Failure::kNone ? guard(regions[i]) : failure;
        if (failure != Failure::kNone) {
          continue;
        }
        mark_guarded(regions[i]);
      }
      std::swap(regions[guarded++], regions[i]);
    }
    return guarded;
  }

  void give_back(const Region* regions, std::size_t count) noexcept {
    // While they are still the caller's: nobody can be handed one that is being emptied.
    for (std::size_t i = 0; i < count; ++i) {
      drop_pages(regions[i].low, regions[i].high);
    }
    const std::lock_guard lock(mutex_);
    Batch* doomed = nullptr;
    for (std::size_t i = 0; i < count; ++i) {
      Batch& batch = *regions[i].batch;
      put_back(regions[i]);
      if (batch.free == batch.all() &&
          (!batch.available || batch.fallback || free_ - batch.count >= kSpareRegions)) {
        if (batch.available) {
          withdraw(batch);
        }
        unlink(batch);
        batch.next = doomed;
        doomed = &batch;
      }
    }
    unmap(doomed);
  }

  void add(Pool& pool) noexcept {
    const std::lock_guard lock(mutex_);
    pool.next_ = pools_;
    if (pools_ != nullptr) {
      pools_->previous_ = &pool;
    }
    pools_ = &pool;
    pool.registered_ = true;
  }

  void remove(Pool& pool) noexcept {
    const std::lock_guard lock(mutex_);
    (pool.previous_ != nullptr ? pool.previous_->next_ : pools_) = pool.next_;
    if (pool.next_ != nullptr) {
      pool.next_->previous_ = pool.previous_;
    }
    // What it handed out and others have now stays counted.
    in_use_elsewhere_ += pool.in_use_.load(std::memory_order_relaxed);
    pool.registered_ = false;
  }

  Region region_at(const std::byte* address) noexcept {
    const std::lock_guard lock(mutex_);
    for (Batch* batch = batches_; batch != nullptr; batch = batch->next) {
      const auto offset = reinterpret_cast<std::uintptr_t>(address) -
                          reinterpret_cast<std::uintptr_t>(batch->base);  // huge if it lies below
      if (const std::size_t index = offset / batch->layout.bytes; index < batch->count) {
        const Region region = batch->region(index);
        return address >= region.low && address < region.boundary ? region : Region{};
      }
    }
    return {};
  }

  Statistics statistics() noexcept {
    Statistics result{};
    std::size_t count = 0;
    Batch* const copies = copy_batches(result, count);
    // Without the mutex: this takes a microsecond or more for each region, and every thread without
    // a pooled region needs the mutex. What is unmapped meanwhile counts as nothing, or as what
    // another mapping has there by then.
    for (std::size_t i = 0; i < count; ++i) {
      result.resident_bytes += copies[i].resident_bytes();
    }
    std::free(copies);
    return result;
  }

 private:
  static const int kWatchesForks;

  // Counts, and copies all batches to look at later; to be freed. Where there is no memory for
  // that, there are none to look at.
  Batch* copy_batches(Statistics& counts, std::size_t& copied) noexcept {
    const std::lock_guard lock(mutex_);
    std::size_t batches = 0;
    for (const Batch* batch = batches_; batch != nullptr; batch = batch->next) {
      counts.reserved += batch->count;
      ++batches;
    }
    counts.in_use = in_use_elsewhere_;
    for (const Pool* pool = pools_; pool != nullptr; pool = pool->next_) {
      counts.in_use += pool->in_use_.load(std::memory_order_relaxed);
    }
    // The counters are read one by one while their threads run on.
    counts.in_use = std::min(counts.in_use, counts.reserved);
    counts.pooled = counts.reserved - counts.in_use;

    auto* const copies = static_cast<Batch*>(std::malloc(batches * sizeof(Batch)));
    if (copies != nullptr) {
      for (const Batch* batch = batches_; batch != nullptr; batch = batch->next) {
        new (&copies[copied++]) Batch(*batch);
      }
    }
    return copies;
  }

  // Maps a batch for `size`, and a few more where there are many already. Or falls back: to a
  // single region, then to ever smaller ones.
  Batch* map(std::size_t size, Failure& failure) noexcept {
    void* const memory = std::malloc(sizeof(Batch));
    if (memory == nullptr) {
      failure = Failure::kAddressSpace;
      return nullptr;
    }
    auto* const batch = new (memory) Batch{};
    batch->wanted = size;
    batch->layout = Layout::in_row(size);
    batch->count = std::clamp(kBatchBytes / batch->layout.bytes, std::size_t{1}, kBatchRegions);
    std::size_t batches = has_many(size) ? kBatchesAtOnce : 1;
    std::byte* mapping = map_row(batch->layout, batches * batch->mapped_bytes());
    if (mapping == nullptr && batches > 1) {
      batches = 1;
      mapping = map_row(batch->layout, batch->mapped_bytes());
    }
    while (mapping == nullptr) {
      if (!batch->fallback) {
        batch->fallback = true;
        batch->count = 1;
      } else if (size > kMinSize) {
        size = std::max(round_up(size / 2, page_size()), kMinSize);
      } else {
        failure = mappings_exhausted() ? Failure::kMappings : Failure::kAddressSpace;
        std::free(batch);
        return nullptr;
      }
      batch->layout = Layout::compact(size);
      mapping = map_bytes(batch->mapped_bytes(), kHeadroomBytes);
    }
    batch->base = mapping + batch->layout.lead;
    add_like(*batch, batches - 1);
    add(*batch);  // last, to be the first that hands out regions
    return batch;
  }

  // The latest tell: where address space has become short, they are alone in their mappings.
  bool has_many(std::size_t size) const noexcept {
    const Batch* batch = batches_;
    for (std::size_t i = 0; i < kManyBatches; ++i, batch = batch->next) {
      if (batch == nullptr || batch->wanted != size || batch->fallback) {
        return false;
      }
    }
    return true;
  }

  void add(Batch& batch) noexcept {
    batch.free = batch.all();
    link(batch);
    offer(batch);
  }

  // Adds the batches whose mappings lie behind that of the first.
  void add_like(const Batch& first, std::size_t batches) noexcept {
    const std::size_t bytes = first.mapped_bytes();
    std::byte* mapping = first.mapping();
    for (; batches != 0; --batches) {
      mapping += bytes;
      void* const memory = std::malloc(sizeof(Batch));
      if (memory == nullptr) {
        munmap(mapping, batches * bytes);
        return;
      }
      auto* const batch = new (memory) Batch{};
      batch->layout = first.layout;
      batch->wanted = first.wanted;
      batch->count = first.count;
      batch->base = mapping + first.layout.lead;
      add(*batch);
    }
  }

  // Maps as Layout::in_row() asks for.
  static std::byte* map_row(const Layout& layout, std::size_t bytes) noexcept {
    std::byte* const mapping = map_bytes(bytes, 0);
    const std::size_t reach = page_table_reach();
    const auto past = reinterpret_cast<std::uintptr_t>(mapping) % reach;
    if (!layout.is_row() || past == 0) {
      return mapping;
    }
    // Once in a program, perhaps: the kernel puts a mapping next to the one before. Where there are
    // as many mappings as there may be, these calls may fail, and then only address space is lost.
    munmap(mapping, bytes);
    std::byte* const wider = map_bytes(bytes + reach, 0);
    if (wider == nullptr) {
      return nullptr;
    }
    const std::size_t before = (reach - reinterpret_cast<std::uintptr_t>(wider) % reach) % reach;
    if (before != 0) {
      munmap(wider, before);
    }
    munmap(wider + before + bytes, reach - before);
    return wider + before;
  }

  // Maps so that `headroom` bytes more could have been mapped.
  static std::byte* map_bytes(std::size_t bytes, std::size_t headroom) noexcept {
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

  // The region is free again.
  void put_back(const Region& region) noexcept {
    Batch& batch = *region.batch;
    const bool was_full = batch.free == 0;
    batch.free |= std::uint64_t{1} << batch.index(region);
    if (was_full && batch.wanted == default_size()) {
      offer(batch);
    } else if (batch.available) {
      ++free_;
    }
  }

  // Sets guards by one system call. False: they are to be set one by one.
  bool guard_together(const Region* regions, std::uint64_t unguarded) noexcept {
    // That advice works is known from the first guard of all.
    if (std::has_single_bit(unguarded) || advice_ != Advice::kWorks || !advises_many_ ||
        for_tests::switches.guard_one_by_one.load() || for_tests::switches.fail_guards.load() ||
        for_tests::switches.force_mprotect.load()) {
      return false;
    }
    std::array<iovec, kMostRefill> guards;
    std::size_t used = 0;
    std::size_t bytes = 0;
    for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
      const Region& region = regions[std::countr_zero(rest)];
      const std::size_t length = region.batch->layout.low;
      guards[used++] = {.iov_base = region.low - length, .iov_len = length};
      bytes += length;
    }
    const long advised =
        syscall(kSysProcessMadvise, kPidfdSelf, guards.data(), used, kMadvGuardInstall, 0);
    if (std::cmp_not_equal(advised, bytes)) {
      advises_many_ = false;  // an older kernel, or a filter of system calls
      return false;
    }
    for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
      mark_guarded(regions[std::countr_zero(rest)]);
    }
    return true;
  }

  // Sets the guard of one region, by advice (which costs no mapping) or else by mprotect.
  Failure guard(const Region& region) noexcept {
    if (for_tests::switches.fail_guards.load()) {
      return Failure::kGuard;
    }
    Batch& batch = *region.batch;
    std::byte* begin = region.low - batch.layout.low;
    if (advice_ != Advice::kUseless && !for_tests::switches.force_mprotect.load()) {
      const bool set = madvise(begin, batch.layout.low, kMadvGuardInstall) == 0;
      if (advice_ == Advice::kUntried) {
        // Success proves nothing: an emulator (qemu-user) may swallow advice it does not know.
        advice_ = set && !is_readable(begin) ? Advice::kWorks : Advice::kUseless;
      }
      if (set && advice_ == Advice::kWorks) {
        return Failure::kNone;
      }
    }
    // A guard in the middle of a mapping makes two more of it.
    if (splits_ + 2 > mapping_limit()) {
      return Failure::kMappings;
    }
    if (mprotect(begin, batch.layout.low, PROT_NONE) != 0) {
      return errno == ENOMEM ? Failure::kMappings : Failure::kGuard;
    }
    batch.splits += 2;
    splits_ += 2;
    return Failure::kNone;
  }

  static void mark_guarded(const Region& region) noexcept {
    region.batch->guarded |= std::uint64_t{1} << region.batch->index(region);
  }

  void offer(Batch& batch) noexcept {
    batch.available = true;
    batch.previous_available = nullptr;
    batch.next_available = available_;
    if (available_ != nullptr) {
      available_->previous_available = &batch;
    }
    available_ = &batch;
    free_ += static_cast<std::size_t>(std::popcount(batch.free));
  }

  void withdraw(Batch& batch) noexcept {
    batch.available = false;
    (batch.previous_available != nullptr ? batch.previous_available->next_available : available_) =
        batch.next_available;
    if (batch.next_available != nullptr) {
      batch.next_available->previous_available = batch.previous_available;
    }
    free_ -= static_cast<std::size_t>(std::popcount(batch.free));
  }

  void link(Batch& batch) noexcept {
    batch.previous = nullptr;
    batch.next = batches_;
    if (batches_ != nullptr) {
      batches_->previous = &batch;
    }
    batches_ = &batch;
  }

  void unlink(Batch& batch) noexcept {
    (batch.previous != nullptr ? batch.previous->next : batches_) = batch.next;
    if (batch.next != nullptr) {
      batch.next->previous = batch.previous;
    }
  }

  // Unmaps a list of batches that are in no other list.
  void unmap(Batch* doomed) noexcept {
    while (doomed != nullptr) {
      Batch* next = doomed->next;
      if (munmap(doomed->mapping(), doomed->mapped_bytes()) == 0) {
        splits_ -= doomed->splits;
        std::free(doomed);
      } else {
        // Out of mappings: the kernel has merged batches, and one from the middle would split what
        // remains. It holds no memory; it stays.
        link(*doomed);
        offer(*doomed);
      }
      doomed = next;
    }
  }

  enum class Advice : std::uint8_t { kUntried, kWorks, kUseless };

  Mutex mutex_;
  Batch* batches_ = nullptr;          // all of them
  Batch* available_ = nullptr;        // those with a free region, except outdated ones
  std::size_t free_ = 0;              // regions free in available batches
  std::size_t splits_ = 0;            // mappings added by guards
  std::size_t in_use_elsewhere_ = 0;  // the counters of pools that are gone
  Pool* pools_ = nullptr;
  Advice advice_ = Advice::kUntried;
  bool advises_many_ = true;
};

namespace {
// In a union: constructed at compile time, never destroyed.
union Immortal {
  constexpr Immortal() : reserve() {}
  ~Immortal() {}
  Reserve reserve;
};
constinit Immortal immortal;
}  // namespace

// Registered when this is loaded. The child of a fork has no other thread that could unlock the
// mutex.
const int Reserve::kWatchesForks =
    pthread_atfork([] { immortal.reserve.mutex_.lock(); }, [] { immortal.reserve.mutex_.unlock(); },
                   [] { immortal.reserve.mutex_.unlock(); });

}  // namespace detail

namespace {

detail::Reserve& reserve() noexcept { return detail::immortal.reserve; }

struct Deep {
  bool below;
  bool above;
};

// Whether pages beyond what a pooled region may hold are in memory. Looks at the data area and at
// the kLookBelow next bytes of the C stack only: stacks grow page by page, and looking at
// all of 8 MiB takes five times as long.
Deep look(const Region& region) noexcept {
  const std::size_t page = page_size();
  std::byte* middle = page_of(region.boundary);
  const std::size_t keep_below = round_up(kKeepBelow, page);
  const std::size_t keep_above = round_up(kKeepAbove, page);
  std::byte* begin = std::max(region.low, middle - keep_below - round_up(kLookBelow, page));
  constexpr std::size_t kMostPages =
      (kKeepBelow + kLookBelow + kDataBytes + 2 * kGuardBytes) / 4096;
  std::array<unsigned char, kMostPages> states;
  const std::size_t pages =
      std::min(states.size(), static_cast<std::size_t>(region.high - begin) / page);
  if (mincore(begin, pages * page, states.data()) != 0) {
    return Deep{true, true};
  }
  const auto resident = [&](std::size_t from, std::size_t to) {
    return std::any_of(states.data() + from, states.data() + std::max(from, std::min(to, pages)),
                       [](unsigned char state) { return (state & 1U) != 0; });
  };
  const std::size_t middle_index = static_cast<std::size_t>(middle - begin) / page;
  return Deep{middle_index > keep_below / page && resident(0, middle_index - keep_below / page),
              resident(middle_index + 1 + keep_above / page, pages)};
}

void trim(const Region& region, Deep deep) noexcept {
  std::byte* middle = page_of(region.boundary);
  if (deep.below) {
    drop_pages(region.low, std::max(region.low, middle - round_up(kKeepBelow, page_size())));
  }
  if (deep.above) {
    drop_pages(middle + page_size() + round_up(kKeepAbove, page_size()), region.high);
  }
}

}  // namespace

const char* describe(Failure failure) noexcept {
  switch (failure) {
    case Failure::kNone:
      return "no failure";
    case Failure::kAddressSpace:
      return "cannot reserve a stack for the greenlet: address space is used up; see the limit "
             "RLIMIT_AS (ulimit -v) and the sysctl vm.overcommit_memory, or set a smaller default "
             "stack size";
    case Failure::kMappings:
      return "cannot guard a stack for the greenlet: the process has as many memory mappings as "
             "it may; raise the sysctl vm.max_map_count (Linux 6.13 and newer need no mapping for "
             "a guard)";
    case Failure::kGuard:
      return "cannot guard a stack for the greenlet: the kernel refused both MADV_GUARD_INSTALL "
             "and mprotect";
  }
  return "unknown failure";
}

bool set_default_size(std::size_t bytes) noexcept {
  if (bytes < kMinSize || bytes > kMaxSize) {
    return false;
  }
  detail::settings.default_size.store(round_up(bytes, page_size()), std::memory_order_relaxed);
  return true;
}

void set_pool_bound(std::size_t regions) noexcept {
  detail::settings.pool_bound.store(regions, std::memory_order_relaxed);
}

Region region_at(const void* address) noexcept {
  return reserve().region_at(static_cast<const std::byte*>(address));
}

Statistics statistics() noexcept { return reserve().statistics(); }

Pool::~Pool() {
  if (count_ != 0) {
    reserve().give_back(entries_, count_);
  }
  if (registered_) {
    reserve().remove(*this);
  }
  std::free(entries_);
}

Region Pool::acquire_slowly(Failure& failure) noexcept {
  if (!registered_) {
    reserve().add(*this);
  }
  adopt_size();
  std::size_t wish = std::max(std::min<std::size_t>(refill_, pool_bound()), std::size_t{1});
  if (!make_room(wish)) {
    wish = 1;
  }
  std::array<Region, kMostRefill> regions;
  std::uint64_t unguarded;
  const std::size_t taken = reserve().take(size_, regions.data(), wish, unguarded, failure);
  // In this order: then the two system calls find each page table where the caches have it.
  populate(regions.data(), taken);
  const std::size_t ready = reserve().guard(regions.data(), taken, unguarded, failure);
  if (ready != taken) {
    reserve().give_back(regions.data() + ready, taken - ready);
  }
  if (ready == 0) {
    refill_ = 1;
    return Region{};
  }
  failure = Failure::kNone;  // though some may have been refused
  // A thread with few greenlets keeps few spare regions.
  refill_ = ready == taken ? std::min<std::uint32_t>(refill_ * 2, kMostRefill) : 1;
  for (std::size_t i = ready; i-- > 1;) {
    entries_[count_++] = regions[i];
  }
  trimmed_ = count_;
  count_in_use(1);
  return regions[0];
}

void Pool::release_slowly(const Region& region) noexcept {
  if (!registered_) {
    reserve().add(*this);
  }
  adopt_size();
  count_in_use(static_cast<std::size_t>(-1));
  const std::size_t bound = pool_bound();
  if (count_ > 0 && count_ >= bound) {
    // The oldest: their memory is the coldest, and all batches of one burst empty together.
    give_back_oldest(
        std::min(count_, count_ - bound + std::max<std::size_t>(1, std::min(kFlush, bound / 2))));
  }
  if (bound == 0 || region.batch->wanted != size_ || !make_room(1)) {
    reserve().give_back(&region, 1);
    return;
  }
  if (until_check_ > 1) {
    --until_check_;
  } else {
    check(region);
  }
  entries_[count_++] = region;
}

// Gives back what deep calls touched. Finding out costs a system call (a microsecond, several times
// what all else about a short greenlet costs), so releases are sampled: while checks find nothing,
// the next is twice as far away, up to kLongestInterval releases. When one finds a deep
// region, others are likely: every entry not known to be trimmed is swept, and the next release is
// checked again. So at most kLongestInterval deep regions in a row go unnoticed.
void Pool::check(const Region& region) noexcept {
  const Deep deep = look(region);
  if (deep.below || deep.above) {
    trim(region, deep);
    for (; trimmed_ < count_; ++trimmed_) {
      trim(entries_[trimmed_], Deep{true, true});
    }
    check_interval_ = 1;
  } else if (check_interval_ < kLongestInterval) {
    check_interval_ *= 2;
  }
  if (trimmed_ == count_) {
    ++trimmed_;  // `region`, about to be pushed
  }
  until_check_ = check_interval_;
}

// Follows a change of the default size: entries of the old size go back to the reserve.
void Pool::adopt_size() noexcept {
  const std::size_t size = default_size();
  if (size_ == size) {
    return;
  }
  give_back_oldest(count_);
  size_ = size;
  const Layout layout = Layout::in_row(size);
  stack_bytes_ = layout.boundary - layout.low;
}

bool Pool::make_room(std::size_t entries) noexcept {
  if (count_ + entries <= capacity_) {
    return true;
  }
  const std::size_t capacity = std::max(capacity_ * 2, std::max(count_ + entries, kMostRefill));
  void* grown = std::realloc(entries_, capacity * sizeof(Region));
  if (grown == nullptr) {
    return false;
  }
  entries_ = static_cast<Region*>(grown);
  capacity_ = capacity;
  return true;
}

void Pool::give_back_oldest(std::size_t regions) noexcept {
  if (regions == 0) {
    return;
  }
  reserve().give_back(entries_, regions);
  count_ -= regions;
  std::memmove(entries_, entries_ + regions, count_ * sizeof(Region));
  trimmed_ -= std::min(trimmed_, regions);
}

}  // namespace greenlet::stack

namespace greenlet::stack::for_tests {

std::size_t guard_bytes() noexcept { return Layout::compact(kMinSize).low; }
std::size_t regions_per_batch() noexcept { return kBatchRegions; }

}  // namespace greenlet::stack::for_tests
