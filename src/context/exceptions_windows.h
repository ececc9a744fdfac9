// Exceptions under way on Windows, where a process may have two C++ runtimes: Microsoft's, in
// vcruntime140.dll, and the one of gcc or clang, in a DLL that some extension module brings along.
// See exceptions.h, which includes this; exceptions_windows.cpp implements it.
//
// Not swapped: what a module keeps that is linked with a C++ runtime of its own. No other code can
// find that.
#pragma once

#include <atomic>
#include <cstdint>

#include "platform/libraries_windows.h"

namespace greenlet::context {

// Microsoft's runtime notes each catch block that runs, in a list on the stack: _CreateFrameInfo()
// adds to it. An exception is destroyed when no catch block has it any more.
struct CatchBlock {
  void* exception = nullptr;
  CatchBlock* next = nullptr;
};

struct SavedExceptions {
  CxaGlobals cxa;
  // Microsoft's: the exception that is handled, where it was thrown, how many destructors run
  // because of exceptions, and the catch blocks.
  void* current = nullptr;
  void* current_context = nullptr;
  int processing = 0;
  CatchBlock* catch_blocks = nullptr;

  std::uintptr_t any() const noexcept {
    return cxa.any() | reinterpret_cast<std::uintptr_t>(current) |
           static_cast<unsigned int>(processing);
  }
};

// Where a thread's are. It behaves like a variable with SavedExceptions in it.
class ExceptionGlobals {
 public:
  // Also not zero if a library was loaded since the last search for runtimes.
  std::uintptr_t any() const noexcept {
    return cxa_->any() | reinterpret_cast<std::uintptr_t>(*current_) |
           static_cast<unsigned int>(*processing_) |
           (searched_ ^ platform::libraries_loaded.load(std::memory_order_relaxed));
  }

  operator SavedExceptions() noexcept;
  ExceptionGlobals& operator=(const SavedExceptions& saved) noexcept;

  // Finds what belongs to the calling thread, which is the only one that uses this object.
  void search() noexcept;

 private:
  // What runtimes that are not there would have.
  static constinit inline CxaGlobals no_cxa_{};
  static constinit inline void* no_pointer_{};
  static constinit inline int no_number_{};

  CxaGlobals* cxa_ = &no_cxa_;
  void** current_ = &no_pointer_;
  void** current_context_ = &no_pointer_;
  int* processing_ = &no_number_;
  std::uint32_t searched_ = ~std::uint32_t{0};
};

}  // namespace greenlet::context
