#include "reserve.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "memory.h"
#include "readable.h"
#include "testing.h"
#include "trimmer.h"

namespace greenlet::stack {
namespace {

constexpr std::size_t kBatchBytes = std::size_t{4} << 30;  // fewer regions where they are large
constexpr std::size_t kBatchesAtOnce = 4;                  // in one mapping, where that is little
constexpr std::size_t kManyBatches = 16;                   // beside so many

// Where address space is short, this much is left to the rest of the program: having it fail at
// its next malloc would be no service.
constexpr std::size_t kHeadroomBytes = std::size_t{32} << 20;

// A batch is unmapped when all its regions are free and the reserve holds this many besides.
constexpr std::size_t kSpareRegions = 256;

}  // namespace

std::size_t Batch::resident_bytes() const noexcept {
  std::size_t pages = 0;
  for (std::uint64_t rest = guarded; rest != 0; rest &= rest - 1) {
    std::byte* begin = base + static_cast<std::size_t>(std::countr_zero(rest)) * layout.bytes;
    pages += resident_pages(begin + layout.low, begin + layout.bytes);
  }
  return pages * page_size();
}

namespace detail {

std::size_t Reserve::take(std::size_t size, Region* regions, std::size_t count,
                          std::uint64_t& unguarded, Failure& failure) noexcept {
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
    const auto index = static_cast<std::size_t>(std::countr_zero(ready != 0 ? ready : batch->free));
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

std::size_t Reserve::guard(Region* regions, std::size_t count, std::uint64_t unguarded,
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

void Reserve::give_back(const Region* regions, std::size_t count) noexcept {
  // While they are still the caller's: nobody can be handed one that is being emptied.
  {
    Trimmer trimmer;
    for (std::size_t i = 0; i < count; ++i) {
      trimmer.keep_nothing(regions[i]);
    }
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

void Reserve::trim() noexcept {
  const std::lock_guard lock(mutex_);
  Batch* doomed = nullptr;
  for (Batch *batch = batches_, *next = nullptr; batch != nullptr; batch = next) {
    next = batch->next;
    if (batch->free == batch->all()) {
      if (batch->available) {
        withdraw(*batch);
      }
      unlink(*batch);
      batch->next = doomed;
      doomed = batch;
    }
  }
  unmap(doomed);
}

void Reserve::add(Pool& pool) noexcept {
  const std::lock_guard lock(mutex_);
  pool.next_ = pools_;
  if (pools_ != nullptr) {
    pools_->previous_ = &pool;
  }
  pools_ = &pool;
  pool.registered_ = true;
}

void Reserve::remove(Pool& pool) noexcept {
  const std::lock_guard lock(mutex_);
  (pool.previous_ != nullptr ? pool.previous_->next_ : pools_) = pool.next_;
  if (pool.next_ != nullptr) {
    pool.next_->previous_ = pool.previous_;
  }
  // What it handed out and others have now stays counted.
  in_use_elsewhere_ += pool.in_use_.load(std::memory_order_relaxed);
  pool.registered_ = false;
}

Region Reserve::region_at(const std::byte* address) noexcept {
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

Statistics Reserve::statistics() noexcept {
  const std::lock_guard lock(mutex_);
  Statistics counts{};
  counts.reserved = regions_;
  counts.in_use = in_use_elsewhere_;
  for (const Pool* pool = pools_; pool != nullptr; pool = pool->next_) {
    counts.in_use += pool->in_use_.load(std::memory_order_relaxed);
  }
  // The counters are read one by one while their threads run on.
  counts.in_use = std::min(counts.in_use, counts.reserved);
  counts.pooled = counts.reserved - counts.in_use;
  return counts;
}

std::size_t Reserve::resident_bytes() noexcept {
  std::size_t bytes = 0;
  std::size_t count = 0;
  Batch* const copies = copy_batches(count);
  // Without the mutex: this takes a microsecond or more for each region, and every thread without
  // a pooled region needs the mutex. What is unmapped meanwhile counts as nothing, or as what
  // another mapping has there by then.
  for (std::size_t i = 0; i < count; ++i) {
    bytes += copies[i].resident_bytes();
  }
  std::free(copies);
  return bytes;
}

Batch* Reserve::copy_batches(std::size_t& copied) noexcept {
  const std::lock_guard lock(mutex_);
  std::size_t batches = 0;
  for (const Batch* batch = batches_; batch != nullptr; batch = batch->next) {
    ++batches;
  }
  auto* const copies = static_cast<Batch*>(std::malloc((batches + 1) * sizeof(Batch)));
  if (copies != nullptr) {
    for (const Batch* batch = batches_; batch != nullptr; batch = batch->next) {
      new (&copies[copied++]) Batch(*batch);
    }
  }
  return copies;
}

Batch* Reserve::map(std::size_t size, Failure& failure) noexcept {
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

bool Reserve::has_many(std::size_t size) const noexcept {
  const Batch* batch = batches_;
  for (std::size_t i = 0; i < kManyBatches; ++i, batch = batch->next) {
    if (batch == nullptr || batch->wanted != size || batch->fallback) {
      return false;
    }
  }
  return true;
}

void Reserve::add(Batch& batch) noexcept {
  batch.free = batch.all();
  link(batch);
  offer(batch);
}

void Reserve::add_like(const Batch& first, std::size_t batches) noexcept {
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

std::byte* Reserve::map_row(const Layout& layout, std::size_t bytes) noexcept {
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

void Reserve::put_back(const Region& region) noexcept {
  Batch& batch = *region.batch;
  const bool was_full = batch.free == 0;
  batch.free |= std::uint64_t{1} << batch.index(region);
  if (was_full && batch.wanted == default_size()) {
    offer(batch);
  } else if (batch.available) {
    ++free_;
  }
}

bool Reserve::guard_together(const Region* regions, std::uint64_t unguarded) noexcept {
  // That advice works is known from the first guard of all.
  if (std::has_single_bit(unguarded) || advice_ != Advice::kWorks || !advises_many_ ||
      for_tests::switches.guard_one_by_one.load() || for_tests::switches.fail_guards.load() ||
      for_tests::switches.force_mprotect.load()) {
    return false;
  }
  std::array<GuardRange, kMostAtOnce> guards{};
  std::size_t used = 0;
  for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
    const Region& region = regions[std::countr_zero(rest)];
    const std::size_t length = region.batch->layout.low;
    guards[used++] = {.begin = region.low - length, .bytes = length};
  }
  if (!install_guards(guards.data(), used)) {
    advises_many_ = false;  // an older kernel, or a filter of system calls
    return false;
  }
  for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
    mark_guarded(regions[std::countr_zero(rest)]);
  }
  return true;
}

Failure Reserve::guard(const Region& region) noexcept {
  if (for_tests::switches.fail_guards.load()) {
    return Failure::kGuard;
  }
  Batch& batch = *region.batch;
  std::byte* begin = region.low - batch.layout.low;
  if (advice_ != Advice::kUseless && !for_tests::switches.force_mprotect.load()) {
    const bool set = install_guard({.begin = begin, .bytes = batch.layout.low});
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

void Reserve::mark_guarded(const Region& region) noexcept {
  region.batch->guarded |= std::uint64_t{1} << region.batch->index(region);
}

void Reserve::offer(Batch& batch) noexcept {
  batch.available = true;
  batch.previous_available = nullptr;
  batch.next_available = available_;
  if (available_ != nullptr) {
    available_->previous_available = &batch;
  }
  available_ = &batch;
  free_ += static_cast<std::size_t>(std::popcount(batch.free));
}

void Reserve::withdraw(Batch& batch) noexcept {
  batch.available = false;
  (batch.previous_available != nullptr ? batch.previous_available->next_available : available_) =
      batch.next_available;
  if (batch.next_available != nullptr) {
    batch.next_available->previous_available = batch.previous_available;
  }
  free_ -= static_cast<std::size_t>(std::popcount(batch.free));
}

void Reserve::link(Batch& batch) noexcept {
  batch.previous = nullptr;
  batch.next = batches_;
  if (batches_ != nullptr) {
    batches_->previous = &batch;
  }
  batches_ = &batch;
  regions_ += batch.count;
}

void Reserve::unlink(Batch& batch) noexcept {
  regions_ -= batch.count;
  (batch.previous != nullptr ? batch.previous->next : batches_) = batch.next;
  if (batch.next != nullptr) {
    batch.next->previous = batch.previous;
  }
}

void Reserve::unmap(Batch* doomed) noexcept {
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

namespace {
// In a union: constructed at compile time, never destroyed.
union Immortal {
  constexpr Immortal() : reserve() {}
  ~Immortal() {}
  Reserve reserve;
};
constinit Immortal immortal;
}  // namespace

Reserve& reserve() noexcept { return immortal.reserve; }

// Registered when this is loaded. The child of a fork has no other thread that could unlock the
// mutex.
const int Reserve::kWatchesForks =
    pthread_atfork([] { immortal.reserve.mutex_.lock(); }, [] { immortal.reserve.mutex_.unlock(); },
                   [] { immortal.reserve.mutex_.unlock(); });

}  // namespace detail
}  // namespace greenlet::stack
