// The fields of a thread state that only free-threaded builds save for each stack (3.14+). Other
// builds have the same structs, empty, so that the lists of fields need no conditions.
#pragma once

#include <Python.h>

#include <cstdint>

#include "cpython/saved_fields.h"

namespace greenlet::cpython {

#ifdef Py_GIL_DISABLED

// The innermost critical section. Critical sections are C frames of the stack that hold mutexes. A
// suspended stack must not hold them, because another greenlet of the thread would wait for its own
// thread. So they are suspended, as a thread that detaches does.
struct CriticalSection {
  static constexpr std::uintptr_t kInactive = 1;  // _Py_CRITICAL_SECTION_INACTIVE

  std::uintptr_t section = 0;

  void start(const NewStack&) noexcept { section = 0; }
  void save(PyThreadState* tstate, const ImplFields&) noexcept {
    if (tstate->critical_section != 0) [[unlikely]] {
      suspend_all(tstate);
    }
    section = tstate->critical_section;
  }
  void restore(PyThreadState* tstate, const ImplFields&) const noexcept {
    tstate->critical_section = section;
  }
  bool must_catch_up(PyThreadState*) const noexcept { return (section & kInactive) != 0; }
  // Takes the locks of the innermost one again. May wait for other threads.
  static void catch_up(PyThreadState* tstate) noexcept;

 private:
  static void suspend_all(PyThreadState* tstate) noexcept;
};

// The list of references that C functions keep on the stack (_PyCStackRef). It lies in place there.
struct CStackRefs {
  void* c_stack_refs = nullptr;

  void start(const NewStack&) noexcept { c_stack_refs = nullptr; }
  void save(PyThreadState*, const ImplFields& impl) noexcept { c_stack_refs = *impl.c_stack_refs; }
  void restore(PyThreadState*, const ImplFields& impl) const noexcept {
    *impl.c_stack_refs = c_stack_refs;
  }
  void finish() noexcept { c_stack_refs = nullptr; }
  void relocate(const Relocation& moved) noexcept;
};

#else

struct CriticalSection {
  static void start(const NewStack&) noexcept {}
  static void save(PyThreadState*, const ImplFields&) noexcept {}
  static void restore(PyThreadState*, const ImplFields&) noexcept {}
};

struct CStackRefs {
  static void start(const NewStack&) noexcept {}
  static void save(PyThreadState*, const ImplFields&) noexcept {}
  static void restore(PyThreadState*, const ImplFields&) noexcept {}
};

#endif

}  // namespace greenlet::cpython
