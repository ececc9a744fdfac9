// The report of an overflow: finds the region by the address of the fault, and writes one line. In
// a signal handler, so without memory and without locks that the thread may hold.
#include "stack/overflow.h"

#include <array>
#include <atomic>
#include <charconv>
#include <cstddef>
#include <mutex>
#include <string_view>

#include "platform/fault.h"
#include "platform/mutex.h"
#include "platform/process.h"
#include "stack/reserve.h"

namespace greenlet::stack {
namespace {

constinit platform::Mutex setting;
// In the child of a fork no other thread could release it.
const int kForkHandlers = platform::around_fork([] { setting.lock(); }, [] { setting.unlock(); });
constinit std::atomic<bool> reports{false};

// A line of text, made without memory from elsewhere.
class Line {
 public:
  Line& add(std::string_view text) noexcept {
    // Not by substr(): unoptimized it needs libstdc++, for what it throws.
    for (std::size_t i = 0; i < text.size() && length_ < text_.size(); ++i) {
      text_[length_++] = text[i];
    }
    return *this;
  }
  Line& add(std::size_t number) noexcept {
    std::array<char, 24> digits;
    char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return add({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }
  void write() const noexcept { platform::write_to_stderr(text_.data(), length_); }

 private:
  std::array<char, 400> text_;
  std::size_t length_ = 0;
};

// In a signal handler.
bool report(const void* address) noexcept {
  const Region region = reserve().region_of_guard(static_cast<const std::byte*>(address));
  if (!region) {
    return false;
  }
  Line line;
  line.add("greenlet: in thread ").add(platform::thread_id());
  line.add(" a greenlet has used up its C stack of ").add(region.stack_bytes() / 1024);
  line.add(
      " KiB; greenlet.stacks.set_size() makes it larger, and faulthandler.enable() shows where "
      "it was\n");
  line.write();
  return true;
}

}  // namespace

bool report_overflow(bool enable) noexcept {
  const std::lock_guard lock(setting);
  reports.store(enable, std::memory_order_relaxed);
  if (!enable) {
    platform::stop_watching_faults();
    return true;
  }
  platform::ensure_signal_stack();
  return platform::watch_faults(&report);
}

bool reports_overflow() noexcept { return reports.load(std::memory_order_relaxed); }

}  // namespace greenlet::stack
