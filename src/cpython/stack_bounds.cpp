#include "cpython/stack_bounds.h"

#include "cpython/internals.h"

#if PY_VERSION_HEX >= 0x030e0000

#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include <internal/pycore_ceval.h>

#include "cpython/locks.h"

// As in src/context/exceptions.cpp: these moved in glibc 2.34, and the old versions are everywhere.
#if defined(__GLIBC__) && defined(__x86_64__)
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.2.5");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.17");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.17");
#endif

namespace greenlet::cpython {
namespace {

constinit std::atomic<FindStack> g_find{nullptr};

bool find_stack(StackBounds& found) noexcept {
  const FindStack find = g_find.load(std::memory_order_acquire);
  return find != nullptr && find(found);
}

std::uintptr_t stack_pointer() noexcept {
  return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}

// --- the answer of the C library ------------------------------------------------------------
//
// What CPython calls is pthread_getattr_np(). Like every function of another library, it is called
// through a word that the dynamic linker has filled in, so another function may be put there: for
// CPython alone, not for other libraries. (With musl CPython asks nobody and guesses by the stack
// pointer, which is good enough until the first frame; see below.)
#ifdef __GLIBC__

using GetAttributes = int (*)(pthread_t, pthread_attr_t*);
constinit std::atomic<GetAttributes> g_get_attributes{nullptr};  // the C library's

int get_attributes(pthread_t thread, pthread_attr_t* attributes) noexcept {
  StackBounds stack;
  if (pthread_equal(thread, pthread_self()) == 0 || !find_stack(stack)) {
    return g_get_attributes.load(std::memory_order_acquire)(thread, attributes);
  }
  if (const int failed = pthread_attr_init(attributes); failed != 0) {
    return failed;
  }
  pthread_attr_setguardsize(attributes, 0);  // the guard lies below `low`
  return pthread_attr_setstack(attributes, const_cast<std::byte*>(stack.low),
                               static_cast<std::size_t>(stack.high - stack.low));
}

// A loaded ELF object: the one that CPython is in, be it the program or a library.
class Image {
 public:
  using Segment = ElfW(Phdr);
  using Entry = ElfW(Dyn);
  using Symbol = ElfW(Sym);
  using Relocation = ElfW(Rela);

  explicit Image(const dl_phdr_info& info) noexcept : info_(info) {}

  bool contains(std::uintptr_t address) const noexcept {
    for (const Segment& segment : segments()) {
      if (segment.p_type == PT_LOAD &&
          address - (info_.dlpi_addr + segment.p_vaddr) < segment.p_memsz) {
        return true;
      }
    }
    return false;
  }

  // Calls `with` for each word that the dynamic linker has put the address of `name` into.
  template <typename With>
  void for_each_import(const char* name, With with) const noexcept {
    const Entry* entry = nullptr;
    for (const Segment& segment : segments()) {
      if (segment.p_type == PT_DYNAMIC) {
        entry = reinterpret_cast<const Entry*>(info_.dlpi_addr + segment.p_vaddr);
      }
    }
    Table tables[2];  // for functions that are bound at their first call, and all others
    const Symbol* symbols = nullptr;
    const char* strings = nullptr;
    for (; entry != nullptr && entry->d_tag != DT_NULL; ++entry) {
      switch (entry->d_tag) {
        case DT_SYMTAB:
          symbols = at<Symbol>(entry->d_un.d_ptr);
          break;
        case DT_STRTAB:
          strings = at<char>(entry->d_un.d_ptr);
          break;
        case DT_JMPREL:
          tables[0].begin = at<Relocation>(entry->d_un.d_ptr);
          break;
        case DT_PLTRELSZ:
          tables[0].count = entry->d_un.d_val / sizeof(Relocation);
          break;
        case DT_RELA:
          tables[1].begin = at<Relocation>(entry->d_un.d_ptr);
          break;
        case DT_RELASZ:
          tables[1].count = entry->d_un.d_val / sizeof(Relocation);
          break;
        case DT_PLTREL:
          if (entry->d_un.d_val != DT_RELA) {
            return;  // the other form, which no supported architecture has
          }
          break;
        default:
          break;
      }
    }
    if (symbols == nullptr || strings == nullptr) {
      return;
    }
    for (const Table& table : tables) {
      for (std::size_t i = 0; table.begin != nullptr && i < table.count; ++i) {
        const Relocation& relocation = table.begin[i];
        const std::size_t symbol = ELF64_R_SYM(relocation.r_info);
        if (symbol != 0 && std::strcmp(strings + symbols[symbol].st_name, name) == 0) {
          with(info_.dlpi_addr + relocation.r_offset);
        }
      }
    }
  }

  // True if the dynamic linker has made the word read-only when it had filled it in.
  bool is_protected(std::uintptr_t word, std::uintptr_t page) const noexcept {
    for (const Segment& segment : segments()) {
      if (segment.p_type == PT_GNU_RELRO) {
        const std::uintptr_t begin = info_.dlpi_addr + segment.p_vaddr;
        return word >= begin / page * page && word < (begin + segment.p_memsz) / page * page;
      }
    }
    return false;
  }

 private:
  struct Table {
    const Relocation* begin = nullptr;
    std::size_t count = 0;
  };
  struct Segments {
    const Segment* first;
    const Segment* last;
    const Segment* begin() const noexcept { return first; }
    const Segment* end() const noexcept { return last; }
  };

  Segments segments() const noexcept {
    return {info_.dlpi_phdr, info_.dlpi_phdr + info_.dlpi_phnum};
  }
  // glibc has added the object's base to what was an offset in the file; unless it could not.
  template <typename T>
  const T* at(ElfW(Addr) address) const noexcept {
    return reinterpret_cast<const T*>(address < info_.dlpi_addr ? info_.dlpi_addr + address
                                                                : address);
  }

  const dl_phdr_info& info_;
};

void replace(const Image& image, std::uintptr_t word) noexcept {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* const begin = reinterpret_cast<void*>(word / page * page);
  const bool is_protected = image.is_protected(word, page);
  if (is_protected && mprotect(begin, page, PROT_READ | PROT_WRITE) != 0) {
    return;  // a hardened system; then the first frame corrects what it can
  }
  auto* const target = reinterpret_cast<GetAttributes*>(word);
  if (const GetAttributes old = __atomic_load_n(target, __ATOMIC_RELAXED); old != &get_attributes) {
    g_get_attributes.store(old, std::memory_order_release);
    __atomic_store_n(target, &get_attributes, __ATOMIC_RELEASE);
  }
  if (is_protected) {
    mprotect(begin, page, PROT_READ);
  }
}

int answer_if_cpython(dl_phdr_info* info, std::size_t, void*) noexcept {
  const Image image(*info);
  if (!image.contains(reinterpret_cast<std::uintptr_t>(&_Py_InitializeRecursionLimits))) {
    return 0;
  }
  // CPython has called it for this thread already, so it is bound.
  image.for_each_import("pthread_getattr_np", [&](std::uintptr_t word) { replace(image, word); });
  return 1;
}

void answer_for_the_c_library() noexcept {
  static constinit std::atomic<bool> answers{false};
  if (!answers.exchange(true, std::memory_order_relaxed)) {
    dl_iterate_phdr(&answer_if_cpython, nullptr);
  }
}

#else
void answer_for_the_c_library() noexcept {}
#endif

// --- the first frame ------------------------------------------------------------------------
//
// A thread state gets memory for Python frames from the allocator of arenas when it pushes its
// first one (pystate.c, push_chunk()). Else that is called once for a MiB of objects. So it is
// where we learn at next to no cost that there is a new thread state, wherever it comes from. One
// that was attached on a greenlet's stack gets the right bounds there, before Python code runs in
// it.
//
// That is too late if it runs no Python code but deallocates objects, as at the end of an
// interpreter. So when the first interpreter beside the main one shows up, or the first thread
// state that was made in a greenlet, we see to the answer of the C library, too. Programs without
// either are left as they are.

using Allocate = void* (*)(void*, std::size_t);
constinit std::atomic<Allocate> g_allocate{nullptr};  // what was there before us

void see_first_frame(PyThreadState* tstate) noexcept {
  StackBounds stack;
  const bool in_greenlet = find_stack(stack);
  if (in_greenlet) {
    *ThreadAnchors::of(tstate).stack_limits = StackLimits::of_stack(stack.low, stack.high);
  }
  if (in_greenlet || tstate->interp != PyInterpreterState_Main()) {
    answer_for_the_c_library();
  }
}

void* allocate_arena(void* context, std::size_t bytes) noexcept {
  PyThreadState* const tstate = current_thread_state();
  if (tstate != nullptr && tstate->datastack_chunk == nullptr) {
    see_first_frame(tstate);
  }
  return g_allocate.load(std::memory_order_relaxed)(context, bytes);
}

// Initializing Python again brings back the allocator that was there at the start. If it is another
// one, somebody has put it before ours, which is called by it.
void watch_first_frames() noexcept {
  // Threads that allocate meanwhile find either function, and the same context with it.
  const StoppedWorld still;
  PyObjectArenaAllocator arenas;
  PyObject_GetArenaAllocator(&arenas);
  const Allocate known = g_allocate.load(std::memory_order_relaxed);
  if (arenas.alloc == &allocate_arena || (known != nullptr && arenas.alloc != known)) {
    return;
  }
  g_allocate.store(arenas.alloc, std::memory_order_relaxed);
  arenas.alloc = &allocate_arena;
  PyObject_SetArenaAllocator(&arenas);
}

}  // namespace

void watch_new_thread_states(FindStack find) noexcept {
  g_find.store(find, std::memory_order_release);
  watch_first_frames();
  // Interpreters that are there already may not push a first frame any more.
  if (PyInterpreterState_Head() != PyInterpreterState_Main()) {
    answer_for_the_c_library();
  }
}

void correct_stack_limits(PyThreadState* tstate, const ThreadAnchors& anchors) noexcept {
  const StackLimits& now = *anchors.stack_limits;
  const std::uintptr_t here = stack_pointer();
  if (now.hard_limit <= here && here < now.top) [[likely]] {
    return;
  }
  StackBounds stack;
  if (find_stack(stack)) {
    *anchors.stack_limits = StackLimits::of_stack(stack.low, stack.high);
  } else {
    _Py_InitializeRecursionLimits(tstate);
  }
}

}  // namespace greenlet::cpython

#else

namespace greenlet::cpython {

void watch_new_thread_states(FindStack) noexcept {}
void correct_stack_limits(PyThreadState*, const ThreadAnchors&) noexcept {}

}  // namespace greenlet::cpython

#endif
