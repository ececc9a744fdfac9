// Functions that a program or library imports from another library: ELF, as on Linux.
#include "platform/imports.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace greenlet::platform {
namespace {

// A loaded ELF object: a program or a library.
class Image {
 public:
  using Segment = ElfW(Phdr);
  using Entry = ElfW(Dyn);
  using Symbol = ElfW(Sym);
  using Relocation = ElfW(Rel);  // an ElfW(Rela) begins with the same two fields

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
    // One is for functions that are bound at their first call, one for all others.
    Table tables[2];
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
          tables[0].begin = at<std::byte>(entry->d_un.d_ptr);
          break;
        case DT_PLTRELSZ:
          tables[0].bytes = entry->d_un.d_val;
          break;
        case kOthers:
          tables[1].begin = at<std::byte>(entry->d_un.d_ptr);
          break;
        case kOthersBytes:
          tables[1].bytes = entry->d_un.d_val;
          break;
        default:
          break;
      }
    }
    if (symbols == nullptr || strings == nullptr) {
      return;
    }
    for (const Table& table : tables) {
      for (std::size_t at = 0; table.begin != nullptr && at < table.bytes; at += kRelocationBytes) {
        const auto& relocation = *reinterpret_cast<const Relocation*>(table.begin + at);
        const std::size_t symbol = relocation.r_info >> kSymbolShift;
        if (symbol != 0 && std::strcmp(strings + symbols[symbol].st_name, name) == 0) {
          with(info_.dlpi_addr + relocation.r_offset);
        }
      }
    }
  }

  // True if the dynamic linker has made the word read-only after it filled the word in.
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
  // 32-bit x86 and ARM have relocations without addends, all other architectures have them with.
#if defined(__i386__) || defined(__arm__)
  static constexpr std::size_t kRelocationBytes = sizeof(ElfW(Rel));
  static constexpr auto kOthers = DT_REL;
  static constexpr auto kOthersBytes = DT_RELSZ;
#else
  static constexpr std::size_t kRelocationBytes = sizeof(ElfW(Rela));
  static constexpr auto kOthers = DT_RELA;
  static constexpr auto kOthersBytes = DT_RELASZ;
#endif
  static constexpr unsigned kSymbolShift = sizeof(void*) == 8 ? 32 : 8;

  struct Table {
    const std::byte* begin = nullptr;
    std::size_t bytes = 0;
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
  // In the file this is an offset. glibc has added the object's base to it, unless that memory was
  // read-only.
  template <typename T>
  const T* at(ElfW(Addr) address) const noexcept {
    return reinterpret_cast<const T*>(address < info_.dlpi_addr ? info_.dlpi_addr + address
                                                                : address);
  }

  const dl_phdr_info& info_;
};

struct Replacement {
  std::uintptr_t address;
  const char* name;
  Function function;
  std::atomic<Function>& old;
};

void replace_at(const Image& image, std::uintptr_t word, const Replacement& with) noexcept {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* const begin = reinterpret_cast<void*>(word / page * page);
  const bool is_protected = image.is_protected(word, page);
  if (is_protected && mprotect(begin, page, PROT_READ | PROT_WRITE) != 0) {
    return;  // a hardened system
  }
  auto* const target = reinterpret_cast<Function*>(word);
  if (const Function old = __atomic_load_n(target, __ATOMIC_RELAXED); old != with.function) {
    with.old.store(old, std::memory_order_release);
    __atomic_store_n(target, with.function, __ATOMIC_RELEASE);
  }
  if (is_protected) {
    mprotect(begin, page, PROT_READ);
  }
}

int replace_if_in(dl_phdr_info* info, std::size_t, void* replacement) noexcept {
  const auto& with = *static_cast<const Replacement*>(replacement);
  const Image image(*info);
  if (!image.contains(with.address)) {
    return 0;
  }
  image.for_each_import(with.name, [&](std::uintptr_t word) { replace_at(image, word, with); });
  return 1;
}

}  // namespace

void replace_import(const void* address, const char* name, Function function,
                    std::atomic<Function>& old) noexcept {
  Replacement replacement{reinterpret_cast<std::uintptr_t>(address), name, function, old};
  dl_iterate_phdr(&replace_if_in, &replacement);
}

}  // namespace greenlet::platform
