// The process-wide reserve: all regions that no thread's pool holds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "platform/mutex.h"
#include "stack/batch.h"
#include "stack/failure.h"
#include "stack/region.h"
#include "stack/stack.h"

namespace greenlet::stack {

// It owns the batches, their free regions, and the list of pools. One mutex protects it all, and is
// held across the system calls that map and guard. A region is free in the reserve, or belongs to
// the caller from take() to give_back(); but nobody may run on it before guard(). Regions in the
// reserve hold no memory. Never destroyed: threads may outlive static destruction.
class Reserve {
 public:
  // Fills `regions` with up to `count` regions for `size`; returns how many. If none, `failure`
  // says why. `unguarded` gets a bit for each that has no guard yet.
  std::size_t take(std::size_t size, Region* regions, std::size_t count, std::uint64_t& unguarded,
                   Failure& failure) noexcept;

  // Sets the guards that take() has found missing. Moves the regions that have a guard to the front
  // and returns how many these are. `failure` says why the others have none.
  std::size_t guard(Region* regions, std::size_t count, std::uint64_t unguarded,
                    Failure& failure) noexcept;

  // Whether empty() gives back nearly all that regions cost, or this region.
  bool can_empty() noexcept;
  bool can_empty(const Region& region) noexcept;
  // Gives back all memory of regions on which nobody runs before refill(), no more than
  // platform::kMostAtOnce: their guards as well. So where neighbours are empty, too, the kernel
  // gives up the page tables.
  //
  // A page table serves a region and the guard of the next one, which may belong to another thread.
  // So the mutex is held until all is given back.
  void empty(const Region* regions, std::size_t count) noexcept;
  // Makes an emptied region usable again: sets its guard. If the system refuses that, nothing has
  // changed.
  Failure refill(const Region& region) noexcept;

  // Takes regions back and gives their memory back to the kernel. May unmap their batches.
  void give_back(const Region* regions, std::size_t count) noexcept;
  // See empty_pools() in pool.h.
  void empty_pools(const void* owner_tag) noexcept;
  // Unmaps every batch whose regions are all free.
  void trim() noexcept;

  // Puts a pool into the list of pools, so that statistics() counts its regions. A pool adds itself
  // at its first use, and removes itself at its end.
  void add(Pool& pool) noexcept;
  void remove(Pool& pool) noexcept;

  // The region on whose C stack `address` lies; empty if on none.
  Region region_at(const std::byte* address) noexcept;
  // The region in whose guard `address` lies; empty if in none, or if the mutex does not become
  // free soon. For signal handlers: takes no lock that the thread may hold.
  Region region_of_guard(const std::byte* address) noexcept;
  Statistics statistics() noexcept;
  std::size_t resident_bytes() noexcept;

 private:
  // What around_fork() has returned. Its initialization registers the functions.
  static const int kForkHookResult;

  // Finds the region that this address lies in, in the guard or above; empty if in none.
  Region find(const std::byte* address) noexcept;

  // Copies all batches; the caller frees the copies. None if there is no memory for them.
  Batch* copy_batches(std::size_t& copied) noexcept;

  SizeClass* find_or_add_class(std::size_t size) noexcept;
  void remove_if_empty(SizeClass& size_class) noexcept;

  // Maps batches; returns the one to use first. Null: `failure` says why.
  Batch* map(SizeClass& size_class, Failure& failure) noexcept;
  // For programs that want all their memory locked: pages that are touched stay in memory.
  void lock_in_memory(Batch& batch) noexcept;

  // Adds a batch that has just been mapped.
  void add(Batch& batch) noexcept;
  // Makes the region free again. If its batch is to be unmapped, adds that to the list `doomed`.
  void put_back(const Region& region, Batch*& doomed) noexcept;
  // For a batch whose regions are all free: adds it to the lists and counts, so that its regions
  // may be handed out; or removes it from them and adds it to the list `doomed`.
  void put_in(Batch& batch) noexcept;
  void take_out(Batch& batch, Batch*& doomed) noexcept;
  // Unmaps all batches whose regions are all free: neither in use nor in a pool.
  void unmap_unused() noexcept;
  // Unmaps a list of batches that have been taken out.
  void unmap(Batch* doomed) noexcept;

  // Sets the guards of several regions by one system call. False: set them one by one.
  bool guard_together(const Region* regions, std::uint64_t unguarded) noexcept;
  // Sets the guard of one region.
  Failure guard(const Region& region) noexcept;

  // Puts a batch with a free region into the list of its size class; takes it out.
  static void offer(Batch& batch) noexcept;
  static void withdraw(Batch& batch) noexcept;
  // Puts a batch into the list of all batches; takes it out.
  void link(Batch& batch) noexcept;
  void unlink(Batch& batch) noexcept;

  platform::Mutex mutex_;
  Batch* batches_ = nullptr;  // all of them
  SizeClass* classes_ = nullptr;
  std::size_t unused_batches_ = 0;    // batches whose regions are all free
  std::size_t regions_ = 0;           // of all batches
  std::size_t free_ = 0;              // regions that are free
  std::size_t mapped_ = 0;            // bytes of all batches
  std::size_t guard_mappings_ = 0;    // mappings that guards have added to the process
  std::size_t in_use_elsewhere_ = 0;  // the sum of in_use_ of pools that are gone
  Pool* pools_ = nullptr;
};

Reserve& reserve() noexcept;

}  // namespace greenlet::stack
