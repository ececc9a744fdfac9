#include "reserve.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "memory.h"
#include "platform/readable.h"
#include "testing.h"
#include "trimmer.h"

namespace greenlet::stack {
namespace {

// The first batch has as many regions as fit into so much, up to so many.
constexpr std::size_t kFirstBytes = std::size_t{48} << 20;
constexpr std::size_t kFirstRegions = 4;
constexpr std::size_t kBatchBytes = std::size_t{4} << 30;  // fewer regions where they are large
constexpr std::size_t kBatchesAtOnce = 4;                  // in one mapping, where that is little
constexpr std::size_t kManyRegions = 16 * kBatchRegions;   // beside so many

// Under a limit, regions have the size that is asked for as long as what is left suffices for so
// many of them, ...
constexpr std::size_t kPlenty = 8192;
// ... and while stacks have less than this part of it all: then no region takes more than that part
// of the part. So the first greenlets of a program have large stacks even if the limit is low.
constexpr std::size_t kFirstPart = 8;
constexpr std::size_t kPartOfPart = 4;
// A batch takes no more than this part of what is left.
constexpr std::size_t kBatchPart = 16;

// Stacks have no more than this part of all addresses. When they have half of that, the limit
// counts as others do.
constexpr std::size_t kPartOfAddresses = 2;

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
  Shelf* const shelf = find_or_add_shelf(size);
  if (shelf == nullptr) {
    failure = Failure::kAddressSpace;
    return 0;
  }
  while (taken < count) {
    Batch* batch = shelf->available;
    if (batch == nullptr && (taken != 0 || (batch = map(*shelf, failure)) == nullptr)) {
      break;
    }
    // Guarded ones first: they were used before, so their page tables exist.
    const std::uint64_t ready = batch->free & batch->guarded;
    const auto index = static_cast<std::size_t>(std::countr_zero(ready != 0 ? ready : batch->free));
    whole_ -= std::size_t{batch->is_whole()};
    batch->free &= ~(std::uint64_t{1} << index);
    --free_;
    if (batch->free == 0) {
      withdraw(*batch);
    }
    unguarded |= std::uint64_t{ready == 0} << taken;
    regions[taken++] = batch->region(index);
  }
  remove_if_empty(*shelf);
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
    put_back(regions[i], doomed);
  }
  unmap(doomed);
}

void Reserve::empty_pools(const void* family) noexcept {
  const std::lock_guard lock(mutex_);
  Batch* doomed = nullptr;
  for (Pool* pool = pools_; pool != nullptr; pool = pool->next_) {
    if (pool->family_ == family) {
      for (; pool->count_ != 0; --pool->count_) {
        const Region& region = pool->entries_[pool->count_ - 1];
        drop_pages(region.low, region.high);
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

Shelf* Reserve::find_or_add_shelf(std::size_t size) noexcept {
  for (Shelf* shelf = shelves_; shelf != nullptr; shelf = shelf->next) {
    if (shelf->size == size) {
      return shelf;
    }
  }
  void* const memory = std::malloc(sizeof(Shelf));
  if (memory != nullptr) {
    shelves_ = new (memory) Shelf{.size = size, .regions = 0, .available = {}, .next = shelves_};
  }
  return static_cast<Shelf*>(memory);
}

void Reserve::remove_if_empty(Shelf& shelf) noexcept {
  if (shelf.regions == 0) {
    Shelf** link = &shelves_;
    while (*link != &shelf) {
      link = &(*link)->next;
    }
    *link = shelf.next;
    std::free(&shelf);
  }
}

Room Reserve::find_room(bool carefully) const noexcept {
  if (const std::size_t all = for_tests::switches.room.load(); all != 0) {
    return {.left = all - std::min(all, mapped_), .limit = Failure::kSpaceLimit};
  }
  Room room = stack::find_room(carefully);
  // Nobody could map anything any more, malloc() neither, if stacks took all that there is.
  const std::size_t most = address_space() / kPartOfAddresses;
  if (const std::size_t left = most - std::min(most, mapped_);
      left < std::min(most / 2, room.left)) {
    room = {.left = left, .limit = Failure::kAddressSpace};
  }
  return room;
}

std::size_t Reserve::plan(Batch& batch, const Room& room) const noexcept {
  std::size_t size = batch.wanted;
  const bool limited = room.limit != Failure::kNone;
  std::size_t most = room.left / kPlenty;
  const bool plenty = !limited || size <= most;
  if (!plenty) {
    const std::size_t first_part = (room.left + mapped_) / kFirstPart;
    most = std::max(most, (first_part - std::min(first_part, mapped_)) / kPartOfPart);
    while (size > kMinSize && size > most) {
      size = std::max(round_up(size / 2, page_size()), kMinSize);
    }
  }
  batch.fallback = size < batch.wanted;
  batch.layout = plenty ? Layout::in_row(size) : Layout::compact(size);
  const std::size_t bytes = batch.layout.bytes;
  const std::size_t first = std::clamp(kFirstBytes / bytes, std::size_t{1}, kFirstRegions);
  batch.count = std::clamp(batch.shelf->regions, first, kBatchRegions);
  batch.count = std::clamp(kBatchBytes / bytes, std::size_t{1}, batch.count);
  if (limited) {
    const bool is_least = size <= std::max(room.left / kPlenty, kMinSize);
    batch.count =
        is_least ? std::clamp(room.left / kBatchPart / bytes, std::size_t{1}, batch.count) : 1;
  }
  return size;
}

Batch* Reserve::map(Shelf& shelf, Failure& failure) noexcept {
  unmap_unused();  // of other sizes: their space may be what is missing
  void* const memory = std::malloc(sizeof(Batch));
  if (memory == nullptr) {
    failure = Failure::kAddressSpace;
    return nullptr;
  }
  auto* const batch = new (memory) Batch{};
  batch->shelf = &shelf;
  batch->wanted = shelf.size;
  Room room = find_room(false);
  std::size_t size = plan(*batch, room);
  std::size_t batches =
      room.limit == Failure::kNone && shelf.regions >= kManyRegions ? kBatchesAtOnce : 1;
  bool locks = false;
  const auto map_row_if_it_fits = [&]() -> std::byte* {
    const std::size_t bytes = batches * batch->mapped_bytes();
    return bytes <= room.left ? map_row(batch->layout, bytes, locks) : nullptr;
  };
  std::byte* mapping = map_row_if_it_fits();
  if (mapping == nullptr && batches > 1) {
    batches = 1;
    mapping = map_row_if_it_fits();
  }
  for (bool again = false; mapping == nullptr; again = true) {
    if (!again) {
      room = find_room(true);
      size = plan(*batch, room);
      batch->fallback = true;
      batch->count = 1;
    } else if (size > kMinSize) {
      size = std::max(round_up(size / 2, page_size()), kMinSize);
    } else {
      failure = room.limit != Failure::kNone && batch->mapped_bytes() > room.left ? room.limit
                : mappings_exhausted()         ? Failure::kMappings
                : room.limit != Failure::kNone ? room.limit
                                               : Failure::kAddressSpace;
      std::free(batch);
      return nullptr;
    }
    batch->layout = Layout::compact(size);
    if (batch->mapped_bytes() <= room.left) {
      mapping = map_bytes(batch->mapped_bytes(), locks);
    }
  }
  batch->base = mapping + batch->layout.lead;
  batches = 1 + add_like(*batch, batches - 1);
  add(*batch);  // last, to be the first that hands out regions
  if (locks) {
    for (Batch* each = batches_; batches != 0; --batches, each = each->next) {
      lock(*each);
    }
  }
  return batch;
}

void Reserve::lock(Batch& batch) noexcept {
  // The kernel takes no advice to install a guard in locked memory.
  for (std::size_t i = 0; i < batch.count && advice_ != Advice::kUseless; ++i) {
    const Region region = batch.region(i);
    if (guard(region) == Failure::kNone) {
      mark_guarded(region);
    }
  }
  lock_on_fault(batch.mapping(), batch.mapped_bytes());
}

void Reserve::add(Batch& batch) noexcept {
  batch.free = batch.all();
  batch.shelf->regions += batch.count;
  mapped_ += batch.mapped_bytes();
  put_in(batch);
}

void Reserve::put_in(Batch& batch) noexcept {
  free_ += batch.count;
  ++whole_;
  link(batch);
  offer(batch);
}

void Reserve::take_out(Batch& batch, Batch*& doomed) noexcept {
  free_ -= batch.count;
  --whole_;
  withdraw(batch);
  unlink(batch);
  batch.next = doomed;
  doomed = &batch;
}

std::size_t Reserve::add_like(const Batch& first, std::size_t batches) noexcept {
  const std::size_t bytes = first.mapped_bytes();
  std::byte* mapping = first.mapping();
  for (std::size_t added = 0; added < batches; ++added) {
    mapping += bytes;
    void* const memory = std::malloc(sizeof(Batch));
    if (memory == nullptr) {
      unmap_bytes(mapping, (batches - added) * bytes);
      return added;
    }
    auto* const batch = new (memory) Batch{};
    batch->layout = first.layout;
    batch->wanted = first.wanted;
    batch->shelf = first.shelf;
    batch->count = first.count;
    batch->base = mapping + first.layout.lead;
    add(*batch);
  }
  return batches;
}

std::byte* Reserve::map_row(const Layout& layout, std::size_t bytes, bool& locks) noexcept {
  std::byte* const mapping = map_bytes(bytes, locks);
  const std::size_t reach = page_table_reach();
  const auto past = reinterpret_cast<std::uintptr_t>(mapping) % reach;
  if (!layout.is_row() || past == 0) {
    return mapping;
  }
  // Once in a program, perhaps: the kernel puts a mapping next to the one before. Where there are
  // as many mappings as there may be, these calls may fail, and then only address space is lost.
  unmap_bytes(mapping, bytes);
  std::byte* const wider = map_bytes(bytes + reach, locks);
  if (wider == nullptr) {
    return nullptr;
  }
  const std::size_t before = (reach - reinterpret_cast<std::uintptr_t>(wider) % reach) % reach;
  if (before != 0) {
    unmap_bytes(wider, before);
  }
  unmap_bytes(wider + before + bytes, reach - before);
  return wider + before;
}

void Reserve::put_back(const Region& region, Batch*& doomed) noexcept {
  Batch& batch = *region.batch;
  const bool was_full = batch.free == 0;
  batch.free |= std::uint64_t{1} << batch.index(region);
  ++free_;
  if (was_full) {
    offer(batch);
  }
  if (batch.is_whole()) {
    ++whole_;
    if (batch.fallback || free_ - batch.count >= kSpareRegions) {
      take_out(batch, doomed);
    }
  }
}

void Reserve::unmap_unused() noexcept {
  if (whole_ == 0) [[likely]] {
    return;
  }
  Batch* doomed = nullptr;
  for (Batch* batch = batches_; batch != nullptr && whole_ != 0;) {
    Batch* const next = batch->next;
    if (batch->is_whole()) {
      take_out(*batch, doomed);
    }
    batch = next;
  }
  unmap(doomed);
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
      advice_ = set && !platform::is_readable(begin) ? Advice::kWorks : Advice::kUseless;
    }
    if (set && advice_ == Advice::kWorks) {
      return Failure::kNone;
    }
  }
  // A guard in the middle of a mapping makes two more of it.
  if (splits_ + 2 > mapping_limit()) {
    return Failure::kMappings;
  }
  if (!protect_guard({.begin = begin, .bytes = batch.layout.low})) {
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
  batch.next_available = batch.shelf->available;
  if (batch.next_available != nullptr) {
    batch.next_available->previous_available = &batch;
  }
  batch.shelf->available = &batch;
}

void Reserve::withdraw(Batch& batch) noexcept {
  batch.available = false;
  (batch.previous_available != nullptr ? batch.previous_available->next_available
                                       : batch.shelf->available) = batch.next_available;
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
    if (unmap_bytes(doomed->mapping(), doomed->mapped_bytes())) {
      splits_ -= doomed->splits;
      mapped_ -= doomed->mapped_bytes();
      doomed->shelf->regions -= doomed->count;
      remove_if_empty(*doomed->shelf);
      std::free(doomed);
    } else {
      // Out of mappings: the kernel has merged batches, and one from the middle would split what
      // remains. It holds no memory; it stays.
      put_in(*doomed);
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
