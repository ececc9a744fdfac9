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

// Of each architecture also kSavedBytes: the stack pointer lies there afterwards.
#if defined(__x86_64__) && defined(_WIN32)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r15", 0xd8},  {"r14", 0xe0},  {"r13", 0xe8},  {"r12", 0xf0},  {"rsi", 0xf8},
    {"rdi", 0x100}, {"rbx", 0x108}, {"rbp", 0x110}, {"rip", 0x118},
};
inline constexpr std::size_t kSavedBytes = 0x120;
#elif defined(__x86_64__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r12", 0x08}, {"r13", 0x10}, {"r14", 0x18}, {"r15", 0x20},
    {"rbx", 0x28}, {"rbp", 0x30}, {"rip", 0x38},
};
inline constexpr std::size_t kSavedBytes = 0x40;
#elif defined(__i386__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"edi", 0x08}, {"esi", 0x0c}, {"ebx", 0x10}, {"ebp", 0x14}, {"eip", 0x18},
};
inline constexpr std::size_t kSavedBytes = 0x1c;
#elif defined(__aarch64__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"x29", 0x00}, {"pc", 0x08},  {"x19", 0x10}, {"x20", 0x18}, {"x21", 0x20}, {"x22", 0x28},
    {"x23", 0x30}, {"x24", 0x38}, {"x25", 0x40}, {"x26", 0x48}, {"x27", 0x50}, {"x28", 0x58},
};
inline constexpr std::size_t kSavedBytes = 0xb0;
#elif defined(__arm__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r4", 0x44}, {"r5", 0x48},  {"r6", 0x4c},  {"r7", 0x50}, {"r8", 0x54},
    {"r9", 0x58}, {"r10", 0x5c}, {"r11", 0x60}, {"pc", 0x64},
};
inline constexpr std::size_t kSavedBytes = 0x68;
#elif defined(__riscv) && __riscv_xlen == 64
inline constexpr SavedRegister kSavedRegisters[] = {
    {"s1", 0x68},  {"s2", 0x70}, {"s3", 0x78}, {"s4", 0x80}, {"s5", 0x88},
    {"s6", 0x90},  {"s7", 0x98}, {"s8", 0xa0}, {"s9", 0xa8}, {"s10", 0xb0},
    {"s11", 0xb8}, {"s0", 0xc0}, {"pc", 0xc8},
};
inline constexpr std::size_t kSavedBytes = 0xd0;
#elif defined(__powerpc64__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r2", 0x18},  {"r14", 0x30}, {"r15", 0x38}, {"r16", 0x40}, {"r17", 0x48},
    {"r18", 0x50}, {"r19", 0x58}, {"r20", 0x60}, {"r21", 0x68}, {"r22", 0x70},
    {"r23", 0x78}, {"r24", 0x80}, {"r25", 0x88}, {"r26", 0x90}, {"r27", 0x98},
    {"r28", 0xa0}, {"r29", 0xa8}, {"r30", 0xb0}, {"r31", 0xb8}, {"pc", 0x220},
};
inline constexpr std::size_t kSavedBytes = 0x210;
#elif defined(__s390x__)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r6", 0x80},  {"r7", 0x88},  {"r8", 0x90},  {"r9", 0x98}, {"r10", 0xa0},
    {"r11", 0xa8}, {"r12", 0xb0}, {"r13", 0xb8}, {"pc", 0xc0},
};
inline constexpr std::size_t kSavedBytes = 0x50;
#elif defined(__loongarch_lp64)
inline constexpr SavedRegister kSavedRegisters[] = {
    {"r23", 0x48}, {"r24", 0x50}, {"r25", 0x58}, {"r26", 0x60}, {"r27", 0x68}, {"r28", 0x70},
    {"r29", 0x78}, {"r30", 0x80}, {"r31", 0x88}, {"r22", 0x90}, {"pc", 0x98},
};
inline constexpr std::size_t kSavedBytes = 0xa0;
#else
#error "context/switch_*.S says where this architecture saves its registers"
#endif

}  // namespace greenlet::context
