// The process-wide reserve of regions, and the batches that they are cut from.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"
#include "platform/mutex.h"
#include "stack.h"

namespace greenlet::stack {

struct Shelf;
struct Room;

// One mapping, cut into regions.
struct Batch {
  // Set once, readable by whoever holds a region of the batch.
  std::byte* base;
  Layout layout;
  std::size_t wanted;  // the size it was mapped for; its regions may be smaller
  std::size_t count;
  bool fallback;  // smaller than wanted, or alone: made where address space was short
  Shelf* shelf;

  // Protected by the reserve's mutex, as are the links.
  std::uint64_t free;     // regions that nobody has
  std::uint64_t guarded;  // regions whose guard is set; set when first handed out
  std::size_t splits;     // mappings added to the process by guards
  bool available;         // has a free region, and is in its shelf's list of those
  Batch* previous;
  Batch* next;
  Batch* previous_available;
  Batch* next_available;

  bool is_whole() const noexcept { return free == all(); }
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
  std::size_t resident_bytes() const noexcept;
};

// The batches whose regions are for one size. Threads with stacks of different sizes each have
// theirs. Protected by the reserve's mutex.
struct Shelf {
  std::size_t size;
  std::size_t regions;  // of all its batches
  Batch* available;     // those with a free region
  Shelf* next;
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
                   Failure& failure) noexcept;

  // Sets the guards that take() found missing. Puts those that have one now in front, returns how
  // many, and says why others have not.
  std::size_t guard(Region* regions, std::size_t count, std::uint64_t unguarded,
                    Failure& failure) noexcept;

  void give_back(const Region* regions, std::size_t count) noexcept;
  void empty_pools(const void* family) noexcept;
  // Unmaps every batch whose regions are all free.
  void trim() noexcept;

  void add(Pool& pool) noexcept;
  void remove(Pool& pool) noexcept;

  Region region_at(const std::byte* address) noexcept;
  Statistics statistics() noexcept;
  std::size_t resident_bytes() noexcept;

 private:
  enum class Advice : std::uint8_t { kUntried, kWorks, kUseless };

  static const int kWatchesForks;

  // Copies all batches to look at later; to be freed. Where there is no memory for that, there are
  // none to look at.
  Batch* copy_batches(std::size_t& copied) noexcept;

  Shelf* find_or_add_shelf(std::size_t size) noexcept;
  void remove_if_empty(Shelf& shelf) noexcept;

  // Maps a batch, and a few more where there are many already. Batches grow with the number of
  // regions that there are, so that a program with a handful of greenlets reserves little. Where a
  // limit leaves little, they are small, and so are their regions. What cannot be mapped at all is
  // tried again as a single region, then with ever smaller ones.
  Batch* map(Shelf& shelf, Failure& failure) noexcept;
  // Chooses layout and number of a batch's regions by what is left; returns their size.
  std::size_t plan(Batch& batch, const Room& room) const noexcept;

  // How much may be mapped.
  Room find_room(bool carefully) const noexcept;

  // If the program wants all in memory: what has been touched stays there.
  void lock(Batch& batch) noexcept;

  void add(Batch& batch) noexcept;

  // Adds the batches whose mappings lie behind that of the first; returns how many: fewer than are
  // mapped if there is no memory for more.
  std::size_t add_like(const Batch& first, std::size_t batches) noexcept;

  // Maps as Layout::in_row() asks for.
  static std::byte* map_row(const Layout& layout, std::size_t bytes, bool& locks) noexcept;

  // The region is free again. Adds its batch to the list `doomed` if it is to be unmapped.
  void put_back(const Region& region, Batch*& doomed) noexcept;
  // A batch whose regions are all free: into the lists and counts of what may be handed out; out of
  // them, and into the list `doomed`.
  void put_in(Batch& batch) noexcept;
  void take_out(Batch& batch, Batch*& doomed) noexcept;
  // Unmaps all batches that have no region in use.
  void unmap_unused() noexcept;

  // Sets guards by one system call. False: they are to be set one by one.
  bool guard_together(const Region* regions, std::uint64_t unguarded) noexcept;

  // Sets the guard of one region, by advice (which costs no mapping) or else by mprotect.
  Failure guard(const Region& region) noexcept;

  static void mark_guarded(const Region& region) noexcept;

  void offer(Batch& batch) noexcept;
  void withdraw(Batch& batch) noexcept;
  void link(Batch& batch) noexcept;
  void unlink(Batch& batch) noexcept;
  // Unmaps a list of batches that have been taken out.
  void unmap(Batch* doomed) noexcept;

  platform::Mutex mutex_;
  Batch* batches_ = nullptr;  // all of them
  Shelf* shelves_ = nullptr;
  std::size_t whole_ = 0;             // batches whose regions are all free
  std::size_t regions_ = 0;           // of all batches
  std::size_t free_ = 0;              // regions that are free
  std::size_t mapped_ = 0;            // bytes of all batches
  std::size_t splits_ = 0;            // mappings added by guards
  std::size_t in_use_elsewhere_ = 0;  // the counters of pools that are gone
  Pool* pools_ = nullptr;
  Advice advice_ = Advice::kUntried;
  bool advises_many_ = true;
};

Reserve& reserve() noexcept;

}  // namespace detail
}  // namespace greenlet::stack
