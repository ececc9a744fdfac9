// Where the registers of a suspended context are: the frame that switch_*.S draws, for tools that
// show its native stack from outside. The assembly files are the ones that decide.
#pragma once

#include <cstddef>
#include <cstdint>

namespace greenlet::context {

// The name of the debugger for a register, and where it lies above the saved stack pointer.
struct SavedRegister {
  char name[4];
  std::uint16_t offset;
};

#if defined(__x86_64__) && defined(_WIN32)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r15", 0xc8}, {"r14", 0xd0}, {"r13", 0xd8},  {"r12", 0xe0},  {"rsi", 0xe8},
    {"rdi", 0xf0}, {"rbx", 0xf8}, {"rbp", 0x100}, {"rip", 0x108},
};
inline constexpr std::size_t kSavedBytes = 0x110;
#elif defined(__x86_64__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r12", 0x08}, {"r13", 0x10}, {"r14", 0x18}, {"r15", 0x20},
    {"rbx", 0x28}, {"rbp", 0x30}, {"rip", 0x38},
};
inline constexpr std::size_t kSavedBytes = 0x40;  // the stack pointer lies there afterwards
#elif defined(__aarch64__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"x29", 0x00}, {"pc", 0x08},  {"x19", 0x10}, {"x20", 0x18}, {"x21", 0x20}, {"x22", 0x28},
    {"x23", 0x30}, {"x24", 0x38}, {"x25", 0x40}, {"x26", 0x48}, {"x27", 0x50}, {"x28", 0x58},
};
inline constexpr std::size_t kSavedBytes = 0xb0;
#else
#error "context/switch_*.S says where this architecture saves its registers"
#endif

}  // namespace greenlet::context
