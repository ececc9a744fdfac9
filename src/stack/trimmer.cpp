// Which pages of a region are given back, and the batches of system calls for it.
#include "stack/trimmer.h"

#include <algorithm>

#include "platform/memory.h"
#include "stack/layout.h"

namespace greenlet::stack {

void Trimmer::drop_all_but(const Region& region, const std::byte* begin,
                           const std::byte* end) noexcept {
  const auto offset = [&](const std::byte* address) {
    return static_cast<std::size_t>(std::clamp<const std::byte*>(address, region.low, region.high) -
                                    region.low);
  };
  // `low` and `high` are at the beginning of a page.
  add(region.low, platform::page_of(region.low + offset(begin)));
  add(region.low + round_up(offset(end), platform::kPageSize), region.high);
}

void Trimmer::add(std::byte* begin, std::byte* end) noexcept {
  if (begin >= end) {
    return;
  }
  if (count_ == kRanges) {
    flush();
  }
  if (counts_ == Counts::kYes) {
    given_back_ += platform::resident_pages({begin, end}) * platform::kPageSize;
  }
  ranges_[count_++] = {.begin = begin, .end = end};
}

void Trimmer::flush() noexcept {
  platform::drop(ranges_.data(), count_);
  count_ = 0;
}

}  // namespace greenlet::stack
