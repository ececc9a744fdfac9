// Memory for stacks on Linux: the system calls, their numbers, and which kernels have them. Also
// readable.h.
#include "platform/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "platform/readable.h"
#include "platform/testing.h"

namespace greenlet::platform {
namespace {

// Older C libraries lack these names.
constexpr int kMadvPopulateWrite = 23;          // Linux 5.14
constexpr int kMadvDontneedLocked = 24;         // Linux 5.18: MADV_DONTNEED for locked memory, too
constexpr int kMadvGuardInstall = 102;          // Linux 6.13
constexpr int kMadvGuardRemove = 103;           // Linux 6.13
constexpr int kPrSetVma = 0x53564d41;           // Linux 5.17
constexpr unsigned long kPrSetVmaAnonName = 0;  // Linux 5.17, CONFIG_ANON_VMA_NAME
constexpr unsigned kMlockOnfault = 1;           // Linux 4.4
// Linux 6.14: the calling process, where a system call expects a file descriptor of a process.
constexpr int kPidfdSelf = -10000;

// System calls that older C libraries have no function for.
constexpr long kSysProcessMadvise = 440;  // Linux 5.10; the number on every architecture
#if defined(SYS_mlock2)
constexpr long kSysMlock2 = SYS_mlock2;
#elif defined(__x86_64__)
constexpr long kSysMlock2 = 325;
#elif defined(__i386__)
constexpr long kSysMlock2 = 376;
#elif defined(__arm__)
constexpr long kSysMlock2 = 390;
#elif defined(__powerpc64__)
constexpr long kSysMlock2 = 378;
#elif defined(__s390x__)
constexpr long kSysMlock2 = 374;
#else
constexpr long kSysMlock2 = 284;  // in the kernel's generic table, which newer architectures use
#endif

// Mapping memory by system calls of our own.
//
// Memory profilers (memray and its kin) put functions of their own in place of the C library's
// mmap() and munmap(), and count what passes there as allocated memory. Our mappings are
// reservations: they are many times larger than what is ever used of them. So these calls pass by
// such profilers. What is used shows in the resident memory of the process, as for the stacks of
// threads.
//
// Sanitizers replace the same functions, and they need to see the calls.
namespace calls {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void* map(std::size_t bytes, int protection, int flags) noexcept {
  return ::mmap(nullptr, bytes, protection, flags, -1, 0);
}
void* resize(void* address, std::size_t old_bytes, std::size_t bytes) noexcept {
  return ::mremap(address, old_bytes, bytes, MREMAP_MAYMOVE);
}
int unmap(void* address, std::size_t bytes) noexcept { return ::munmap(address, bytes); }
int protect(void* address, std::size_t bytes, int protection) noexcept {
  return ::mprotect(address, bytes, protection);
}
int advise(void* address, std::size_t bytes, int advice) noexcept {
  return ::madvise(address, bytes, advice);
}

#else

// These return what the functions of the C library do, and set errno as they do.
void* map(std::size_t bytes, int protection, int flags) noexcept {
#if defined(__s390x__)
  // On this architecture the arguments lie in memory.
  const std::array<unsigned long, 6> arguments{
      0, bytes, static_cast<unsigned long>(protection), static_cast<unsigned long>(flags), ~0UL, 0};
  return reinterpret_cast<void*>(syscall(SYS_mmap, arguments.data()));
#else
#ifdef SYS_mmap2
  constexpr long kMap = SYS_mmap2;
#else
  constexpr long kMap = SYS_mmap;
#endif
  return reinterpret_cast<void*>(syscall(kMap, nullptr, bytes, protection, flags, -1, 0L));
#endif
}
void* resize(void* address, std::size_t old_bytes, std::size_t bytes) noexcept {
  return reinterpret_cast<void*>(
      syscall(SYS_mremap, address, old_bytes, bytes, MREMAP_MAYMOVE, nullptr));
}
int unmap(void* address, std::size_t bytes) noexcept {
  return static_cast<int>(syscall(SYS_munmap, address, bytes));
}
int protect(void* address, std::size_t bytes, int protection) noexcept {
  return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}
int advise(void* address, std::size_t bytes, int advice) noexcept {
  return static_cast<int>(syscall(SYS_madvise, address, bytes, advice));
}

#endif

// Advice on several ranges of the calling process at once: returns the bytes advised, or -1.
long advise_all(const iovec* ranges, std::size_t count, int advice) noexcept {
  return syscall(kSysProcessMadvise, kPidfdSelf, ranges, count, advice, 0);
}

}  // namespace calls

// The name of the mapping in /proc/PID/maps, in crash reports and in pmap.
void name_mapping(std::byte* begin, std::size_t bytes, const char* name) noexcept {
  static constinit std::atomic<bool> works{true};
  // Not by the C library's prctl(): memray looks at calls of that function, too.
  if (works.load(std::memory_order_relaxed) &&
      syscall(SYS_prctl, kPrSetVma, kPrSetVmaAnonName, begin, bytes, name) != 0) {
    works.store(false, std::memory_order_relaxed);
  }
}

// Whether RLIMIT_MEMLOCK does not hold for the process: it is unlimited, or the process has
// CAP_IPC_LOCK.
bool locks_without_limit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY) {
    return true;
  }
  // As in linux/capability.h, which not every C library comes with.
  struct Header {
    std::uint32_t version;
    int process;
  } header{.version = 0x20080522, .process = 0};
  struct Set {
    std::uint32_t effective, permitted, inheritable;
  };
  std::array<Set, 2> sets{};
  constexpr unsigned kIpcLock = 14;
  return syscall(SYS_capget, &header, sets.data()) == 0 &&
         (sets[0].effective >> kIpcLock & 1U) != 0;
}

// Address space without access. If the program locks what it maps, the kernel counts all of it as
// locked at once, and refuses what is more than RLIMIT_MEMLOCK. The kernel does not count a small
// mapping that has been unlocked and then grows.
void* reserve_bytes(std::size_t bytes) noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const address = calls::map(bytes, PROT_NONE, kFlags);
  if (address != MAP_FAILED || errno != EAGAIN) {
    return address;
  }
  void* const seed = calls::map(kPageSize, PROT_NONE, kFlags);
  if (seed == MAP_FAILED) {
    return MAP_FAILED;
  }
  munlock(seed, kPageSize);
  void* const grown = calls::resize(seed, kPageSize, bytes);
  if (grown == MAP_FAILED) {
    const int reason = errno;
    calls::unmap(seed, kPageSize);
    errno = reason;
  }
  return grown;
}

// As map(), at any page.
std::byte* map_anywhere(std::size_t bytes, bool& locks) noexcept {
  const std::size_t largest = for_tests::switches.largest_mapping.load();
  if (largest != 0 && bytes > largest) {
    errno = ENOMEM;
    return nullptr;
  }
  // Without access at first: at this moment it may be locked, and the kernel fills what is locked
  // and accessible with memory.
  void* const address = reserve_bytes(bytes);
  if (address == MAP_FAILED) {
    return nullptr;
  }
  auto* const base = static_cast<std::byte*>(address);
  // There is nothing to drop. But the kernel refuses this advice for locked memory, which makes it
  // the cheapest way to find out.
  locks = calls::advise(base, kPageSize, MADV_DONTNEED) != 0;
  if (locks) {
    munlock(base, bytes);
  }
  if (calls::protect(base, bytes, PROT_READ | PROT_WRITE) != 0) {
    const int reason = errno;
    calls::unmap(base, bytes);
    errno = reason;
    return nullptr;
  }
  // Without this advice the kernel may back 2 MiB for the few bytes that a small greenlet touches.
  // Kernels without huge pages refuse it, which is as good.
  calls::advise(base, bytes, MADV_NOHUGEPAGE);
  name_mapping(base, bytes, "greenlet stacks");
  return base;
}

std::uintptr_t number(const std::byte* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address);
}

iovec as_iovec(const Range& range) noexcept {
  return {.iov_base = range.begin, .iov_len = range.bytes()};
}

enum class Advice : std::uint8_t { kUntried, kWorks, kUseless };

// Whether the kernel takes advice to install guards; the first guard finds out.
constinit std::atomic<Advice> guard_advice{Advice::kUntried};

}  // namespace

const std::size_t kPageSize = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

void* allocate_aligned(std::size_t alignment, std::size_t bytes) noexcept {
  return std::aligned_alloc(alignment, bytes);
}

// --- address space ------------------------------------------------------------------------------

std::byte* map(std::size_t bytes, std::size_t alignment, bool& locks) noexcept {
  std::byte* const mapping = map_anywhere(bytes, locks);
  if (mapping == nullptr || number(mapping) % alignment == 0) {
    return mapping;
  }
  // Once in a program, perhaps: the kernel puts a mapping next to the one before. If the process
  // has as many mappings as it may, the calls that cut off the ends may fail. Then only address
  // space is lost.
  calls::unmap(mapping, bytes);
  std::byte* const wider = map_anywhere(bytes + alignment, locks);
  if (wider == nullptr) {
    return nullptr;
  }
  const std::size_t before = (alignment - number(wider) % alignment) % alignment;
  if (before != 0) {
    calls::unmap(wider, before);
  }
  calls::unmap(wider + before + bytes, alignment - before);
  return wider + before;
}

bool unmap(const Range& range) noexcept { return calls::unmap(range.begin, range.bytes()) == 0; }

void lock_on_fault(const Range& range) noexcept {
  if (locks_without_limit()) {
    syscall(kSysMlock2, range.begin, range.bytes(), kMlockOnfault);  // fails before Linux 4.4
  }
}

// --- guards -------------------------------------------------------------------------------------

bool advise_guard(const Range& guard) noexcept {
  const Advice known = guard_advice.load(std::memory_order_relaxed);
  if (known == Advice::kUseless || for_tests::switches.no_guards_by_advice.load()) {
    return false;
  }
  const bool installed = calls::advise(guard.begin, guard.bytes(), kMadvGuardInstall) == 0;
  if (known == Advice::kUntried) {
    // Success proves nothing: an emulator (qemu-user) may swallow advice that it does not know.
    const bool works = installed && !is_readable(guard.begin);
    guard_advice.store(works ? Advice::kWorks : Advice::kUseless, std::memory_order_relaxed);
    return works;
  }
  return installed;
}

bool advise_guards(const Range* guards, std::size_t count) noexcept {
  // False for an older kernel, or if a filter of system calls refuses the call.
  static constinit std::atomic<bool> works{true};
  if (guard_advice.load(std::memory_order_relaxed) != Advice::kWorks ||
      !works.load(std::memory_order_relaxed) || for_tests::switches.guard_one_by_one.load() ||
      for_tests::switches.no_guards_by_advice.load()) {
    return false;
  }
  std::array<iovec, kMostAtOnce> ranges;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    ranges[i] = as_iovec(guards[i]);
    bytes += guards[i].bytes();
  }
  if (!std::cmp_equal(calls::advise_all(ranges.data(), count, kMadvGuardInstall), bytes)) {
    works.store(false, std::memory_order_relaxed);
    return false;
  }
  return true;
}

void remove_guards(const Range* guards, std::size_t count) noexcept {
  std::array<iovec, kMostAtOnce> ranges;
  std::transform(guards, guards + count, ranges.begin(), as_iovec);
  calls::advise_all(ranges.data(), count, kMadvGuardRemove);
}

bool guards_cost_mappings() noexcept {
  return guard_advice.load(std::memory_order_relaxed) == Advice::kUseless;
}

Protected protect_guard(const Range& guard) noexcept {
  if (calls::protect(guard.begin, guard.bytes(), PROT_NONE) != 0) {
    return errno == ENOMEM ? Protected::kNoMappings : Protected::kNo;
  }
  name_mapping(guard.begin, guard.bytes(), "greenlet stack guard");
  return Protected::kYes;
}

// --- pages --------------------------------------------------------------------------------------

bool commit(const StackMemory* const* stacks, std::size_t count) noexcept {
  // The first time that the kernel refuses is the last time that it is asked.
  static constinit std::atomic<bool> works{true};
  if (count < 2 || !works.load(std::memory_order_relaxed)) {
    return true;
  }
  std::array<iovec, kMostAtOnce> pages;
  for (std::size_t i = 0; i < count; ++i) {
    pages[i] = {.iov_base = page_of(stacks[i]->boundary), .iov_len = kPageSize};
  }
  if (calls::advise_all(pages.data(), count, kMadvPopulateWrite) < 0) {
    works.store(false, std::memory_order_relaxed);
  }
  return true;
}

void drop(const Range& range) noexcept {
  if (range.begin < range.end && calls::advise(range.begin, range.bytes(), MADV_DONTNEED) != 0) {
    calls::advise(range.begin, range.bytes(), kMadvDontneedLocked);  // mlockall()
  }
}

void drop(const Range* ranges, std::size_t count) noexcept {
  static constinit std::atomic<bool> works{true};
  if (count > 1 && works.load(std::memory_order_relaxed) &&
      !for_tests::switches.drop_one_by_one.load()) {
    std::array<iovec, kMostAtOnce> pages;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      pages[i] = as_iovec(ranges[i]);
      bytes += ranges[i].bytes();
    }
    if (std::cmp_equal(calls::advise_all(pages.data(), count, MADV_DONTNEED), bytes)) {
      return;
    }
    works.store(false, std::memory_order_relaxed);  // an older kernel, or locked memory
  }
  for (std::size_t i = 0; i < count; ++i) {
    drop(ranges[i]);
  }
}

bool query_residency(std::byte* begin, std::size_t pages, unsigned char* states) noexcept {
  return mincore(begin, pages * kPageSize, states) == 0;
}

std::size_t resident_pages(const Range& range) noexcept {
  std::array<unsigned char, 4096> states;
  std::size_t resident = 0;
  for (std::byte* begin = range.begin; begin < range.end;) {
    const std::size_t pages =
        std::min(states.size(), static_cast<std::size_t>(range.end - begin) / kPageSize);
    if (query_residency(begin, pages, states.data())) {
      for (std::size_t i = 0; i < pages; ++i) {
        resident += states[i] & 1U;
      }
    }
    begin += pages * kPageSize;
  }
  return resident;
}

bool is_readable(const void* address) noexcept {
  // The kernel reads the signal set before it looks at the first argument, which is invalid.
  errno = 0;
  syscall(SYS_rt_sigprocmask, ~0, address, nullptr, _NSIG / 8);
  return errno != EFAULT;
}

bool copy_readable(void* to, const void* from, std::size_t bytes) noexcept {
  const iovec local{.iov_base = to, .iov_len = bytes};
  const iovec remote{.iov_base = const_cast<void*>(from), .iov_len = bytes};
  const long copied = syscall(SYS_process_vm_readv, getpid(), &local, 1UL, &remote, 1UL, 0UL);
  if (std::cmp_equal(copied, bytes)) {
    return true;
  }
  if (copied >= 0 || errno == EFAULT) {
    return false;
  }
  // A filter of system calls refuses it. Without it, memory that is unmapped at this moment faults.
  const auto* const begin = static_cast<const std::byte*>(from);
  if (bytes < sizeof(void*) || !is_readable(begin) || !is_readable(begin + bytes - sizeof(void*))) {
    return false;
  }
  std::memcpy(to, from, bytes);
  return true;
}

}  // namespace greenlet::platform
