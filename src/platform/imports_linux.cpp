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
            return;  // DT_REL, which no supported architecture uses
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
