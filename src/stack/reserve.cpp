// The reserve: handing regions out, taking them back, and the lists of batches and pools.
#include "stack/reserve.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "platform/limits.h"
#include "platform/process.h"
#include "stack/testing.h"
#include "stack/trimmer.h"

namespace greenlet::stack {
namespace {

// A batch is unmapped when all its regions are free and the reserve holds this many besides.
constexpr std::size_t kSpareRegions = 256;

}  // namespace

std::size_t Reserve::take(std::size_t size, Region* regions, std::size_t count,
                          std::uint64_t& unguarded, Failure& failure) noexcept {
  const std::lock_guard lock(mutex_);
  unguarded = 0;
  std::size_t taken = 0;
  failure = Failure::kNone;
  SizeClass* const size_class = find_or_add_class(size);
  if (size_class == nullptr) {
    failure = Failure::kUnexplained;
    return 0;
  }
  while (taken < count) {
    Batch* batch = size_class->available;
    if (batch == nullptr && (taken != 0 || (batch = map(*size_class, failure)) == nullptr)) {
      break;
    }
    // Guarded ones first: they were used before, so their page tables exist.
    const std::uint64_t ready = batch->free & batch->guarded;
    const auto index = static_cast<std::size_t>(std::countr_zero(ready != 0 ? ready : batch->free));
    unused_batches_ -= std::size_t{batch->is_unused()};
    batch->free &= ~(std::uint64_t{1} << index);
    --free_;
    if (batch->free == 0) {
      withdraw(*batch);
    }
    unguarded |= std::uint64_t{ready == 0} << taken;
    regions[taken++] = batch->region(index);
  }
  remove_if_empty(*size_class);
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
      regions[i].batch->guarded |= regions[i].batch->bit(regions[i]);
    }
    std::swap(regions[guarded++], regions[i]);
  }
  return guarded;
}

void Reserve::give_back(const Region* regions, std::size_t count) noexcept {
  // Before they are free, so that nobody is handed a region that is being emptied.
  {
    Trimmer trimmer;
    for (std::size_t i = 0; i < count; ++i) {
      trimmer.drop_all(regions[i]);
    }
  }
  const std::lock_guard lock(mutex_);
  Batch* doomed = nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    put_back(regions[i], doomed);
  }
  unmap(doomed);
}

void Reserve::empty_pools(const void* owner_tag) noexcept {
  const std::lock_guard lock(mutex_);
  Batch* doomed = nullptr;
  for (Pool* pool = pools_; pool != nullptr; pool = pool->next_) {
    if (pool->owner_tag_ == owner_tag) {
      for (; pool->count_ != 0; --pool->count_) {
        const Region& region = pool->entries_[pool->count_ - 1];
        platform::drop({region.low, region.high});
        put_back(region, doomed);
      }
      pool->settled_ = pool->lowest_ = 0;
      pool->return_budget();
    }
  }
  unmap(doomed);
}

void Reserve::trim() noexcept {
  const std::lock_guard lock(mutex_);
  unmap_unused();
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
  // Others may still have regions that this pool handed out; they stay counted.
  in_use_elsewhere_ += pool.in_use_.load(std::memory_order_relaxed);
  pool.registered_ = false;
}

Region Reserve::find(const std::byte* address) noexcept {
  for (Batch* batch = batches_; batch != nullptr; batch = batch->next) {
    const auto offset = reinterpret_cast<std::uintptr_t>(address) -
                        reinterpret_cast<std::uintptr_t>(batch->base);  // huge if it lies below
    if (const std::size_t index = offset / batch->layout.bytes; index < batch->count) {
      return batch->region(index);
    }
  }
  return {};
}

Region Reserve::region_at(const std::byte* address) noexcept {
  const std::lock_guard lock(mutex_);
  const Region region = find(address);
  return address >= region.low && address < region.boundary ? region : Region{};
}

Region Reserve::region_of_guard(const std::byte* address) noexcept {
  constexpr int kTries = 10'000;  // other threads hold the mutex for a few system calls
  for (int i = 0; i < kTries; ++i) {
    if (mutex_.try_lock()) {
      const Region region = find(address);
      const bool is_guard = region && address < region.low &&
                            (region.batch->guarded & region.batch->bit(region)) != 0;
      mutex_.unlock();
      return is_guard ? region : Region{};
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
  // The counters are read one by one, and their threads may change them during this.
  counts.in_use = std::min(counts.in_use, counts.reserved);
  counts.pooled = counts.reserved - counts.in_use;
  return counts;
}

std::size_t Reserve::resident_bytes() noexcept {
  std::size_t bytes = 0;
  std::size_t count = 0;
  Batch* const copies = copy_batches(count);
  // Without the mutex: this takes a microsecond or more for each region, and every thread whose
  // pool is empty needs the mutex. A region that is unmapped during this counts as nothing, or as
  // the memory of a mapping that lies there by then.
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

SizeClass* Reserve::find_or_add_class(std::size_t size) noexcept {
  for (SizeClass* found = classes_; found != nullptr; found = found->next) {
    if (found->size == size) {
      return found;
    }
  }
  void* const memory = std::malloc(sizeof(SizeClass));
  if (memory != nullptr) {
    classes_ =
        new (memory) SizeClass{.size = size, .regions = 0, .available = {}, .next = classes_};
  }
  return static_cast<SizeClass*>(memory);
}

void Reserve::remove_if_empty(SizeClass& size_class) noexcept {
  if (size_class.regions == 0) {
    SizeClass** link = &classes_;
    while (*link != &size_class) {
      link = &(*link)->next;
    }
    *link = size_class.next;
    std::free(&size_class);
  }
}

Batch* Reserve::map(SizeClass& size_class, Failure& failure) noexcept {
  unmap_unused();  // batches of other sizes: their space may be what is missing
  const MappedBatches mapped = map_batches(size_class, mapped_);
  failure = mapped.failure;
  Batch* last = nullptr;
  for (Batch* batch = mapped.first; batch != nullptr;) {
    Batch* const next = batch->next;
    add(*batch);
    if (mapped.locks) {
      lock_in_memory(*batch);
    }
    last = batch;
    batch = next;
  }
  return last;
}

void Reserve::lock_in_memory(Batch& batch) noexcept {
  batch.locked = true;
  // The kernel takes no advice to install a guard in locked memory.
  for (std::size_t i = 0; i < batch.count && !platform::guards_cost_mappings(); ++i) {
    const Region region = batch.region(i);
    if (guard(region) == Failure::kNone) {
      batch.guarded |= batch.bit(region);
    }
  }
  platform::lock_on_fault(batch.mapped());
}

void Reserve::add(Batch& batch) noexcept {
  batch.free = batch.all();
  batch.size_class->regions += batch.count;
  mapped_ += batch.mapped_bytes();
  put_in(batch);
}

void Reserve::put_in(Batch& batch) noexcept {
  free_ += batch.count;
  ++unused_batches_;
  link(batch);
  offer(batch);
}

void Reserve::take_out(Batch& batch, Batch*& doomed) noexcept {
  free_ -= batch.count;
  --unused_batches_;
  withdraw(batch);
  unlink(batch);
  batch.next = doomed;
  doomed = &batch;
}

void Reserve::put_back(const Region& region, Batch*& doomed) noexcept {
  Batch& batch = *region.batch;
  const bool was_full = batch.free == 0;
  batch.free |= batch.bit(region);
  ++free_;
  if (was_full) {
    offer(batch);
  }
  if (batch.is_unused()) {
    ++unused_batches_;
    if (batch.fallback || free_ - batch.count >= kSpareRegions) {
      take_out(batch, doomed);
    }
  }
}

void Reserve::unmap_unused() noexcept {
  if (unused_batches_ == 0) [[likely]] {
    return;
  }
  Batch* doomed = nullptr;
  for (Batch* batch = batches_; batch != nullptr && unused_batches_ != 0;) {
    Batch* const next = batch->next;
    if (batch->is_unused()) {
      take_out(*batch, doomed);
    }
    batch = next;
  }
  unmap(doomed);
}

bool Reserve::guard_together(const Region* regions, std::uint64_t unguarded) noexcept {
  if (std::has_single_bit(unguarded) || for_tests::switches.fail_guards.load()) {
    return false;
  }
  std::array<platform::Range, platform::kMostAtOnce> guards{};
  std::size_t count = 0;
  for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
    guards[count++] = guard_of(regions[std::countr_zero(rest)]);
  }
  if (!platform::advise_guards(guards.data(), count)) {
    return false;
  }
  for (std::uint64_t rest = unguarded; rest != 0; rest &= rest - 1) {
    const Region& region = regions[std::countr_zero(rest)];
    region.batch->guarded |= region.batch->bit(region);
  }
  return true;
}

Failure Reserve::guard(const Region& region) noexcept {
  if (for_tests::switches.fail_guards.load()) {
    return Failure::kGuard;
  }
  const platform::Range guard = guard_of(region);
  if (platform::advise_guard(guard)) {
    return Failure::kNone;
  }
  if (guard_mappings_ + platform::kMappingsOfAGuard > platform::mapping_limit()) {
    return Failure::kMappings;
  }
  switch (platform::protect_guard(guard)) {
    case platform::Protected::kYes:
      break;
    case platform::Protected::kNoMappings:
      return Failure::kMappings;
    case platform::Protected::kNo:
      return Failure::kGuard;
  }
  region.batch->guard_mappings += platform::kMappingsOfAGuard;
  guard_mappings_ += platform::kMappingsOfAGuard;
  return Failure::kNone;
}

void Reserve::offer(Batch& batch) noexcept {
  batch.available = true;
  batch.previous_available = nullptr;
  batch.next_available = batch.size_class->available;
  if (batch.next_available != nullptr) {
    batch.next_available->previous_available = &batch;
  }
  batch.size_class->available = &batch;
}

void Reserve::withdraw(Batch& batch) noexcept {
  batch.available = false;
  (batch.previous_available != nullptr ? batch.previous_available->next_available
                                       : batch.size_class->available) = batch.next_available;
  if (batch.next_available != nullptr) {
    batch.next_available->previous_available = batch.previous_available;
  }
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
    Batch* const next = doomed->next;
    if (platform::unmap(doomed->mapped())) {
      guard_mappings_ -= doomed->guard_mappings;
      mapped_ -= doomed->mapped_bytes();
      doomed->size_class->regions -= doomed->count;
      remove_if_empty(*doomed->size_class);
      std::free(doomed);
    } else {
      // Out of mappings: the kernel has merged batches into one mapping, and unmapping one from the
      // middle would split that. It holds no memory, and stays.
      put_in(*doomed);
    }
    doomed = next;
  }
}

namespace {

// In a union: constructed at compile time, never destroyed.
union NeverDestroyed {
  constexpr NeverDestroyed() noexcept : reserve() {}
  ~NeverDestroyed() {}
  Reserve reserve;
};
constinit NeverDestroyed g_reserve;

}  // namespace

Reserve& reserve() noexcept { return g_reserve.reserve; }

// Registered when this is loaded: the child of a fork finds the mutex free.
const int Reserve::kForkHookResult = platform::around_fork(
    [] { g_reserve.reserve.mutex_.lock(); }, [] { g_reserve.reserve.mutex_.unlock(); });

}  // namespace greenlet::stack
