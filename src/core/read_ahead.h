// Reading ahead of the collector, from one suspended stack to the next. Greenlet::traverse() calls
// it; collection.cpp implements it.
#pragma once

namespace greenlet::core {

class Greenlet;
class Thread;

// The collector visits the greenlets of a thread mostly in the order of their list, forwards or
// backwards. The frames of each lie in pages of their own, several cache and TLB misses away. The
// processor can work on many misses at a time if it sees the addresses before it needs the
// contents. So this reads the frames of a batch of greenlets before the collector visits them.
//
// Only a thread that collects uses it; it has the GIL or has stopped the world.
class ReadAhead {
 public:
  // The collector visits `greenlet`, which belongs to `owner` and is not running. Once in a batch
  // this reads ahead, and notes an event for the sweep if `owner` is the calling thread's.
  void visit(Thread& owner, const Greenlet& greenlet) noexcept;

 private:
  const Greenlet* last_visited_ = nullptr;  // may be gone: only to be compared
  int until_batch_ = 0;                     // visits until the next batch
};

}  // namespace greenlet::core
