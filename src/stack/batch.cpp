// Planning and mapping batches: how large, how many regions, and what to try where space is short.
#include "stack/batch.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

#include "platform/limits.h"
#include "stack/settings.h"
#include "stack/testing.h"

namespace greenlet::stack {
namespace {

using platform::kPageSize;

// The first batch has as many regions as fit into kFirstBytes, up to kFirstRegions.
constexpr std::size_t kFirstBytes = std::size_t{48} << 20;
constexpr std::size_t kFirstRegions = 4;
// A batch is no larger than this, unless one region is.
constexpr std::size_t kBatchBytes =
    std::size_t{platform::kShortOfAddresses ? 64 : 4096} * (std::size_t{1} << 20);
// If a size has kManyRegions regions or more, kBatchesAtOnce batches are mapped at once.
constexpr std::size_t kBatchesAtOnce = platform::kUnmapsParts ? 4 : 1;
constexpr std::size_t kManyRegions = 16 * kBatchRegions;

// Under a limit, regions have the size that is asked for if what is left suffices for kPlenty of
// them. Otherwise they are smaller, so that it does.
constexpr std::size_t kPlenty = 8192;
// The first regions may be larger than that. While stacks have less than 1/kFirstPart of all that
// they may have, a region may take 1/kPartOfPart of the difference. So the first greenlets of a
// program have large stacks even if the limit is low.
constexpr std::size_t kFirstPart = 8;
constexpr std::size_t kPartOfPart = 4;
// A batch takes no more than 1/kBatchPart of what is left.
constexpr std::size_t kBatchPart = 16;

// Stacks have no more than 1/kPartOfAddresses of all addresses. When they have half of that, it
// counts as a limit like others.
constexpr std::size_t kPartOfAddresses = 2;

// How much may be mapped, and which limit leaves no more.
struct Room {
  std::size_t left;
  Failure limit;
};

Failure failure_of(platform::Limit limit) noexcept {
  switch (limit) {
    case platform::Limit::kNone:
      break;
    case platform::Limit::kAddressSpace:
      return Failure::kAddressSpaceLimit;
    case platform::Limit::kData:
      return Failure::kData;
    case platform::Limit::kCommit:
      return Failure::kCommit;
  }
  return Failure::kNone;
}

Room find_room(std::size_t mapped, bool carefully) noexcept {
  if (const std::size_t all = for_tests::switches.room.load(); all != 0) {
    return {.left = all - std::min(all, mapped), .limit = Failure::kAddressSpaceLimit};
  }
  const platform::Room room = platform::find_room(carefully);
  // If stacks took all addresses, nobody could map anything any more, malloc() included.
  const std::size_t most = platform::address_space() / kPartOfAddresses;
  if (const std::size_t left = most - std::min(most, mapped);
      left < std::min(most / 2, room.left)) {
    return {.left = left, .limit = Failure::kUnexplained};
  }
  return {.left = room.left, .limit = failure_of(room.limit)};
}

std::size_t smaller(std::size_t size) noexcept {
  return std::max(round_up(size / 2, kPageSize), kMinSize);
}

// Chooses the layout and the number of a batch's regions by what is left; returns their size.
std::size_t plan(Batch& batch, const Room& room, std::size_t mapped) noexcept {
  std::size_t size = batch.wanted;
  const bool limited = room.limit != Failure::kNone;
  std::size_t most = room.left / kPlenty;
  const bool plenty = !limited || size <= most;
  if (!plenty) {
    const std::size_t first_part = (room.left + mapped) / kFirstPart;
    most = std::max(most, (first_part - std::min(first_part, mapped)) / kPartOfPart);
    while (size > kMinSize && size > most) {
      size = smaller(size);
    }
  }
  batch.fallback = size < batch.wanted;
  batch.layout = plenty ? Layout::in_row(size) : Layout::compact(size);
  const std::size_t bytes = batch.layout.bytes;
  const std::size_t first = std::clamp(kFirstBytes / bytes, std::size_t{1}, kFirstRegions);
  batch.count = std::clamp(batch.size_class->regions, first, kBatchRegions);
  batch.count = std::clamp(kBatchBytes / bytes, std::size_t{1}, batch.count);
  if (limited) {
    const bool is_least = size <= std::max(room.left / kPlenty, kMinSize);
    batch.count =
        is_least ? std::clamp(room.left / kBatchPart / bytes, std::size_t{1}, batch.count) : 1;
  }
  return size;
}

// Maps a single region, with smaller and smaller stacks down to kMinSize. Null: the limit explains
// why, if there is one.
std::byte* map_fallback(Batch& batch, std::size_t mapped, bool& locks, Failure& failure) noexcept {
  const Room room = find_room(mapped, true);
  for (std::size_t size = plan(batch, room, mapped);; size = smaller(size)) {
    batch.fallback = true;
    batch.count = 1;
    batch.layout = Layout::compact(size);
    const std::size_t bytes = batch.mapped_bytes();
    std::byte* const mapping =
        bytes <= room.left ? platform::map(bytes, batch.layout.alignment(), locks) : nullptr;
    if (mapping != nullptr) {
      return mapping;
    }
    if (size <= kMinSize) {
      const bool is_limited = room.limit != Failure::kNone;
      failure = is_limited && bytes > room.left  ? room.limit
                : platform::mappings_exhausted() ? Failure::kMappings
                : is_limited                     ? room.limit
                                                 : Failure::kUnexplained;
      return nullptr;
    }
  }
}

Batch* make_batch() noexcept {
  void* const memory = std::malloc(sizeof(Batch));
  return memory != nullptr ? new (memory) Batch{} : nullptr;
}

// Makes the batches whose mappings lie behind that of `last`, and puts them in front of it. Where
// there is no memory for all of them, the mappings of the others are unmapped.
Batch* make_others(Batch& last, std::size_t others) noexcept {
  const std::size_t bytes = last.mapped_bytes();
  std::byte* const end = last.mapping() + (1 + others) * bytes;
  Batch* first = &last;
  Batch** link = &first;
  for (std::byte* mapping = last.mapping() + bytes; mapping < end; mapping += bytes) {
    Batch* const batch = make_batch();
    if (batch == nullptr) {
      platform::unmap({mapping, end});
      break;
    }
    batch->layout = last.layout;
    batch->wanted = last.wanted;
    batch->size_class = last.size_class;
    batch->count = last.count;
    batch->base = mapping + last.layout.lead;
    batch->next = &last;
    *link = batch;
    link = &batch->next;
  }
  return first;
}

}  // namespace

std::size_t Batch::resident_bytes() const noexcept {
  std::size_t pages = 0;
  for (std::uint64_t rest = guarded; rest != 0; rest &= rest - 1) {
    std::byte* begin = base + static_cast<std::size_t>(std::countr_zero(rest)) * layout.bytes;
    pages += platform::resident_pages({begin + layout.low, begin + layout.bytes});
  }
  return pages * kPageSize;
}

MappedBatches map_batches(SizeClass& size_class, std::size_t mapped) noexcept {
  MappedBatches result;
  Batch* const batch = make_batch();
  if (batch == nullptr) {
    result.failure = Failure::kUnexplained;
    return result;
  }
  batch->size_class = &size_class;
  batch->wanted = size_class.size;
  const Room room = find_room(mapped, false);
  plan(*batch, room, mapped);
  const auto map_if_it_fits = [&](std::size_t batches) -> std::byte* {
    const std::size_t bytes = batches * batch->mapped_bytes();
    return bytes <= room.left ? platform::map(bytes, batch->layout.alignment(), result.locks)
                              : nullptr;
  };
  std::size_t batches =
      room.limit == Failure::kNone && size_class.regions >= kManyRegions ? kBatchesAtOnce : 1;
  std::byte* mapping = map_if_it_fits(batches);
  if (mapping == nullptr && batches > 1) {
    batches = 1;
    mapping = map_if_it_fits(1);
  }
  if (mapping == nullptr) {
    mapping = map_fallback(*batch, mapped, result.locks, result.failure);
  }
  if (mapping == nullptr) {
    std::free(batch);
    return result;
  }
  batch->base = mapping + batch->layout.lead;
  result.first = make_others(*batch, batches - 1);
  return result;
}

}  // namespace greenlet::stack
