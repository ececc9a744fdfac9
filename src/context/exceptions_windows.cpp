// What the C++ runtimes of Windows keep per thread about exceptions under way.
#include <atomic>

#include "context.h"
#include "platform/libraries_windows.h"
#include "platform/thread_windows.h"

namespace greenlet::context {
namespace {

// A function of a runtime, which is looked for until it is found.
template <typename Signature>
class Function {
 public:
  explicit constexpr Function(const char* name) noexcept : name_(name) {}

  bool find(const char* library) noexcept {
    return is_known() || keep(platform::find_function(library, name_));
  }
  bool find_anywhere() noexcept { return is_known() || keep(platform::find_function(name_)); }
  bool is_known() const noexcept { return known_.load(std::memory_order_acquire) != nullptr; }

  template <typename... Arguments>
  auto operator()(Arguments... arguments) const noexcept {
    return known_.load(std::memory_order_relaxed)(arguments...);
  }

 private:
  bool keep(platform::Function found) noexcept {
    known_.store(reinterpret_cast<Signature*>(found), std::memory_order_release);
    return found != nullptr;
  }

  const char* name_;
  std::atomic<Signature*> known_{nullptr};
};

constinit Function<CxaGlobals*()> cxa_get_globals("__cxa_get_globals");

// Microsoft's runtime calls these itself, from other DLLs of its own.
constexpr const char* kMicrosofts = "vcruntime140.dll";
constinit Function<void**()> current_exception("__current_exception");
constinit Function<void**()> current_context("__current_exception_context");
constinit Function<int*()> processing_throw("__processing_throw");
constinit Function<CatchBlock*(CatchBlock*, void*)> create_frame_info("_CreateFrameInfo");
constinit Function<void(CatchBlock*)> unlink_frame("_FindAndUnlinkFrame");

bool has_microsofts() noexcept { return unlink_frame.is_known(); }

bool find_microsofts() noexcept {
  return has_microsofts() ||
         (current_exception.find(kMicrosofts) && current_context.find(kMicrosofts) &&
          processing_throw.find(kMicrosofts) && create_frame_info.find(kMicrosofts) &&
          unlink_frame.find(kMicrosofts));
}

// The list of catch blocks has no function that returns it. A block that is added has it as `next`,
// unless the list begins at a lower address. That it never does here: the catch blocks of the list
// are on the stack that runs, and were entered earlier.
CatchBlock* catch_blocks() noexcept {
  CatchBlock here;
  create_frame_info(&here, nullptr);
  CatchBlock* const first = here.next;
  unlink_frame(&here);
  return first;
}

void set_catch_blocks(CatchBlock* first) noexcept {
  CatchBlock here;
  create_frame_info(&here, nullptr);
  here.next = first;  // to unlink a block makes its `next` the first
  unlink_frame(&here);
}

}  // namespace

constinit ExceptionGlobals g_no_exception_globals;

ExceptionGlobals* thread_exception_globals() noexcept {
  static constinit thread_local ExceptionGlobals here;
  // This is called before the first switch of a thread.
  platform::remember_own_stack();
  here.search();
  return &here;
}

void ExceptionGlobals::search() noexcept {
  platform::count_libraries();
  const std::uint32_t loaded = platform::libraries_loaded.load(std::memory_order_relaxed);
  if (searched_ == loaded) {
    return;
  }
  searched_ = loaded;
  if (cxa_ == &no_cxa_ && cxa_get_globals.find_anywhere()) {
    cxa_ = cxa_get_globals();
  }
  if (current_ == &no_pointer_ && find_microsofts()) {
    current_ = current_exception();
    current_context_ = current_context();
    processing_ = processing_throw();
  }
}

ExceptionGlobals::operator SavedExceptions() noexcept {
  search();
  SavedExceptions saved{.cxa = *cxa_,
                        .current = *current_,
                        .current_context = *current_context_,
                        .processing = *processing_};
  if (current_ != &no_pointer_) {
    saved.catch_blocks = catch_blocks();
  }
  return saved;
}

// What a runtime has that is not there is never written: it stays empty.
ExceptionGlobals& ExceptionGlobals::operator=(const SavedExceptions& saved) noexcept {
  if (cxa_ != &no_cxa_) {
    *cxa_ = saved.cxa;
  }
  if (current_ != &no_pointer_) {
    *current_ = saved.current;
    *current_context_ = saved.current_context;
    *processing_ = saved.processing;
    set_catch_blocks(saved.catch_blocks);
  }
  return *this;
}

}  // namespace greenlet::context
