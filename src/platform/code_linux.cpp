// The executable mappings of the process, by the ioctl PROCMAP_QUERY (Linux 6.11). Freezing needs a
// newer kernel than that in any case.
#include "platform/code.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "platform/clock.h"
#include "platform/mutex.h"
#include "platform/process.h"

namespace greenlet::platform {
namespace {

// As in linux/fs.h, which is older on most build machines.
struct MappingQuery {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t address;
  std::uint64_t begin, end, mapping_flags, page_size, offset, inode;
  std::uint32_t device_major, device_minor;
  std::uint32_t name_size;
  std::uint32_t build_id_size;
  std::uint64_t name;
  std::uint64_t build_id;
};
constexpr std::uint64_t kExecutable = 0x04;
constexpr std::uint64_t kCoveringOrNext = 0x10;
constexpr unsigned long kMappingQuery = _IOWR('f', 17, MappingQuery);

// The C library, as glibc and musl name it and their loaders. Words of them are on every stack,
// where calls have been that are over.
constexpr std::array<const char*, 8> kSystem = {"/libc.so", "/libc-2.",    "/ld-linux", "/ld-2.",
                                                "/ld-musl", "/libpthread", "/libm.so",  "[vdso]"};

struct Code {
  std::uintptr_t begin, end;
  bool is_known;
};

// Part of a path that has been allowed. Never freed.
struct Allowed {
  const Allowed* next;
  char part[1];
};
constinit std::atomic<const Allowed*> allowed{nullptr};

// The list. `guard` protects it all.
constinit Mutex guard;
constexpr std::size_t kMostCode = 1024;
constinit std::array<Code, kMostCode> code;
constinit std::size_t count = 0;
constinit bool is_complete = false;
constinit std::uint64_t made = 0;  // when; zero if it must be made again

[[maybe_unused]] const int kForkHandlers =
    around_fork([] { guard.lock(); }, [] { guard.unlock(); });

bool is_allowed(const char* path) noexcept {
  for (const char* const part : kSystem) {
    if (std::strstr(path, part) != nullptr) {
      return true;
    }
  }
  for (const Allowed* each = allowed.load(std::memory_order_acquire); each != nullptr;
       each = each->next) {
    if (std::strstr(path, each->part) != nullptr) {
      return true;
    }
  }
  return false;
}

bool list_code(int mappings, const void* const* known, std::size_t known_count) noexcept {
  std::array<char, 4096> path;
  count = 0;
  for (std::uint64_t next = 0;;) {
    MappingQuery query{};
    query.size = sizeof(query);
    query.flags = kExecutable | kCoveringOrNext;
    query.address = next;
    query.name = reinterpret_cast<std::uintptr_t>(path.data());
    query.name_size = static_cast<std::uint32_t>(path.size());
    path[0] = '\0';
    if (ioctl(mappings, kMappingQuery, &query) != 0) {
      return errno == ENOENT;  // no more
    }
    if (count == code.size()) {
      return false;
    }
    const auto covers = [&](const void* address) {
      const auto at = reinterpret_cast<std::uintptr_t>(address);
      return at >= query.begin && at < query.end;
    };
    code[count++] = {
        .begin = query.begin,
        .end = query.end,
        .is_known = std::any_of(known, known + known_count, covers) || is_allowed(path.data())};
    next = query.end;
  }
}

void update(const void* const* known, std::size_t known_count, std::uint64_t now_is) noexcept {
  const int mappings = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  is_complete = mappings >= 0 && list_code(mappings, known, known_count);
  made = now_is;
  if (mappings >= 0) {
    close(mappings);
  }
}

}  // namespace

bool ForeignCode::is_absent(const std::byte* begin, const std::byte* end, const void* const* known,
                            std::size_t known_count, std::uint64_t may_be_old) noexcept {
  const std::lock_guard lock(guard);
  if (const std::uint64_t now_is = now(Clock::kCoarse);
      made == 0 || may_be_old == kNew || now_is - made > may_be_old) {
    update(known, known_count, now_is);
  }
  if (!is_complete || count == 0) {
    return false;
  }
  const std::uintptr_t lowest = code[0].begin;
  const std::uintptr_t highest = code[count - 1].end;
  for (; begin < end; begin += sizeof(std::uintptr_t)) {
    std::uintptr_t word;
    std::memcpy(&word, begin, sizeof(word));
    if (word < lowest || word >= highest) {
      continue;
    }
    // A return address may be the end of its function, and that the end of the mapping.
    const auto* const found = std::upper_bound(
        code.begin(), code.begin() + count, word - 1,
        [](std::uintptr_t address, const Code& each) { return address < each.end; });
    if (found != code.begin() + count && word - 1 >= found->begin && !found->is_known) {
      return false;
    }
  }
  return true;
}

bool ForeignCode::allow(const char* part_of_path) noexcept {
  const std::size_t length = std::strlen(part_of_path);
  void* const memory = std::malloc(sizeof(Allowed) + length);
  if (memory == nullptr) {
    return false;
  }
  auto* const made_now = static_cast<Allowed*>(memory);
  std::memcpy(made_now->part, part_of_path, length + 1);
  made_now->next = allowed.load(std::memory_order_relaxed);
  while (!allowed.compare_exchange_weak(made_now->next, made_now, std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
  const std::lock_guard lock(guard);
  made = 0;
  return true;
}

}  // namespace greenlet::platform
