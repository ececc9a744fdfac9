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
constexpr std::array<const char*, 8> kSystem = {"libc.so", "libc-2.",    "ld-linux", "ld-2.",
                                                "ld-musl", "libpthread", "libm.so",  "[vdso]"};

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
constinit std::array<Code, kMostCode> code{};
constinit std::size_t count = 0;
constinit bool is_complete = false;
constinit bool has_all_known = false;  // each known address is in a file that fits
constinit std::uint64_t made = 0;      // when; zero if it must be made again

[[maybe_unused]] const int kForkHandlers =
    around_fork([] { guard.lock(); }, [] { guard.unlock(); });

bool begins_with(const char* text, const char* begin) noexcept {
  return std::strncmp(text, begin, std::strlen(begin)) == 0;
}

const char* file_name(const char* path) noexcept {
  const char* const slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

// Whether a part of the path begins so and ends in the file name. A folder alone does not count:
// "module.libs" is where wheels of a module have other libraries.
bool has_part(const char* path, const char* part) noexcept {
  for (const char* found = std::strstr(path, part); found != nullptr;
       found = std::strstr(found + 1, part)) {
    if (std::strchr(found + std::strlen(part), '/') == nullptr) {
      return true;
    }
  }
  return false;
}

bool is_allowed(const char* path) noexcept {
  for (const char* const name : kSystem) {
    if (begins_with(file_name(path), name)) {
      return true;
    }
  }
  for (const Allowed* each = allowed.load(std::memory_order_acquire); each != nullptr;
       each = each->next) {
    if (has_part(path, each->part)) {
      return true;
    }
  }
  return false;
}

// How many of the known addresses lie in the mapping, and in a file whose name fits.
std::size_t known_in(const MappingQuery& mapping, const char* path,
                     std::span<const KnownCode> known) noexcept {
  return static_cast<std::size_t>(std::ranges::count_if(known, [&](const KnownCode& each) {
    const auto at = reinterpret_cast<std::uintptr_t>(each.address);
    const char* const name = file_name(path);
    return at >= mapping.begin && at < mapping.end &&
           begins_with(begins_with(name, "lib") ? name + 3 : name, each.name);
  }));
}

bool list_code(int mappings, std::span<const KnownCode> known) noexcept {
  std::array<char, 4096> path;
  std::size_t known_found = 0;
  count = 0;
  has_all_known = false;
  for (std::uint64_t next = 0;;) {
    MappingQuery query{};
    query.size = sizeof(query);
    query.flags = kExecutable | kCoveringOrNext;
    query.address = next;
    query.name = reinterpret_cast<std::uintptr_t>(path.data());
    query.name_size = static_cast<std::uint32_t>(path.size());
    path[0] = '\0';
    if (ioctl(mappings, kMappingQuery, &query) != 0) {
      has_all_known = known_found == known.size();
      return errno == ENOENT;  // no more
    }
    if (count == code.size()) {
      return false;
    }
    const std::size_t known_here = known_in(query, path.data(), known);
    known_found += known_here;
    code[count++] = {.begin = static_cast<std::uintptr_t>(query.begin),
                     .end = static_cast<std::uintptr_t>(query.end),
                     .is_known = known_here != 0 || is_allowed(path.data())};
    next = query.end;
  }
}

// Makes the list if it is older than `may_be_old`. Takes the guard as held.
void update(std::span<const KnownCode> known, std::uint64_t may_be_old) noexcept {
  const std::uint64_t now_is = now(Clock::kCoarse);
  if (made != 0 && may_be_old != ForeignCode::kNew && now_is - made <= may_be_old) {
    return;
  }
  const int mappings = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  is_complete = mappings >= 0 && list_code(mappings, known);
  made = now_is;
  if (mappings >= 0) {
    close(mappings);
  }
}

}  // namespace

bool ForeignCode::can_tell(std::span<const KnownCode> known) noexcept {
  const std::lock_guard lock(guard);
  update(known, kRecent);
  return is_complete && has_all_known;
}

bool ForeignCode::is_absent(const std::byte* begin, const std::byte* end,
                            std::span<const KnownCode> known, std::uint64_t may_be_old) noexcept {
  const std::lock_guard lock(guard);
  update(known, may_be_old);
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
