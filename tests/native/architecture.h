// What the native tests know of an architecture, in one place: how many registers registers_ARCH.S
// checks, the floating-point control words, and how the unwinder tells the end of a stack.
#pragma once

#include <unwind.h>

#include <cstddef>
#include <cstdint>

namespace greenlet::tests {

// --- registers ----------------------------------------------------------------------------------

// In words of std::uintptr_t.
#if defined(__x86_64__)
inline constexpr std::size_t kRegisters = 6;
#elif defined(__i386__)
inline constexpr std::size_t kRegisters = 4;
#elif defined(__aarch64__)
inline constexpr std::size_t kRegisters = 11 + 8;
#elif defined(__arm__)
inline constexpr std::size_t kRegisters = 8 + 2 * 8;
#elif defined(__riscv_float_abi_double)
inline constexpr std::size_t kRegisters = 12 + 12;
#elif defined(__riscv)
inline constexpr std::size_t kRegisters = 12;
#elif defined(__powerpc64__)
inline constexpr std::size_t kRegisters = 18 + 18 + 2 * 12 + 1;
#elif defined(__s390x__)
inline constexpr std::size_t kRegisters = 8 + 8;
#elif defined(__loongarch_lp64)
inline constexpr std::size_t kRegisters = 10 + 8;
#else
#error "How many registers does registers_ARCH.S check?"
#endif

// --- floating-point control words ---------------------------------------------------------------

// Two functions for each word, and two masks: the bits that belong to the caller of a function, and
// some of these that a program may change without harm. No rounding mode: fesetround() changes it.
struct ControlWord {
  const char* name;
  std::uint64_t (*read)();
  void (*write)(std::uint64_t);
  std::uint64_t kept;
  std::uint64_t changed;
};

#if defined(__x86_64__) || defined(__i386__)

inline constexpr ControlWord kControlWords[] = {
    {.name = "MXCSR",
     .read =
         [] {
           std::uint32_t word;
           asm volatile("stmxcsr %0" : "=m"(word));
           return std::uint64_t{word};
         },
     .write =
         [](std::uint64_t value) {
           const auto word = static_cast<std::uint32_t>(value);
           asm volatile("ldmxcsr %0" : : "m"(word));
         },
     .kept = 0xffc0,
     .changed = 0x8040},  // flush to zero
    {.name = "the x87 control word",
     .read =
         [] {
           std::uint16_t word;
           asm volatile("fnstcw %0" : "=m"(word));
           return std::uint64_t{word};
         },
     .write =
         [](std::uint64_t value) {
           const auto word = static_cast<std::uint16_t>(value);
           asm volatile("fldcw %0" : : "m"(word));
         },
     .kept = 0xffff,
     .changed = 0x0300},  // single precision
};

#elif defined(__aarch64__)

inline constexpr ControlWord kControlWords[] = {
    {.name = "FPCR",
     .read =
         [] {
           std::uint64_t word;
           asm volatile("mrs %0, fpcr" : "=r"(word));
           return word;
         },
     .write = [](std::uint64_t word) { asm volatile("msr fpcr, %0"
                                                    :
                                                    : "r"(word)); },
     .kept = 0xffffffff,
     .changed = 1U << 24},  // flush to zero
};

#elif defined(__arm__)

inline constexpr ControlWord kControlWords[] = {
    {.name = "FPSCR",
     .read =
         [] {
           std::uint32_t word;
           asm volatile("vmrs %0, fpscr" : "=r"(word));
           return std::uint64_t{word};
         },
     .write =
         [](std::uint64_t value) {
           const auto word = static_cast<std::uint32_t>(value);
           asm volatile("vmsr fpscr, %0" : : "r"(word));
         },
     .kept = 0x07ffff00,
     .changed = 1U << 24},  // flush to zero
};

#elif defined(__riscv_flen)

inline constexpr ControlWord kControlWords[] = {
    {.name = "fcsr",
     .read =
         [] {
           std::uint64_t word;
           asm volatile("frcsr %0" : "=r"(word));
           return word;
         },
     .write = [](std::uint64_t word) { asm volatile("fscsr %0"
                                                    :
                                                    : "r"(word)); },
     .kept = 0xe0,
     .changed = 0x80},  // rounds ties away from zero, which fesetround() does not know
};

#elif defined(__powerpc64__)

inline constexpr ControlWord kControlWords[] = {
    {.name = "FPSCR",
     .read =
         [] {
           double word;
           asm volatile("mffs %0" : "=d"(word));
           return __builtin_bit_cast(std::uint64_t, word);
         },
     .write =
         [](std::uint64_t word) {
           asm volatile("mtfsf 0xff, %0, 1, 0" : : "d"(__builtin_bit_cast(double, word)));
         },
     .kept = 0x7000000ff,
     .changed = 0x100000008},  // decimal rounding, and an enable that Linux ignores
};

#elif defined(__s390x__)

inline constexpr ControlWord kControlWords[] = {
    {.name = "FPC",
     .read =
         [] {
           std::uint32_t word;
           asm volatile("stfpc %0" : "=Q"(word));
           return std::uint64_t{word};
         },
     .write =
         [](std::uint64_t value) {
           const auto word = static_cast<std::uint32_t>(value);
           asm volatile("lfpc %0" : : "Q"(word));
         },
     .kept = 0xff0000ff,
     .changed = 0x80000010},  // the mask of invalid operations, and decimal rounding
};

#elif defined(__loongarch_lp64)

inline constexpr ControlWord kControlWords[] = {
    {.name = "fcsr0",
     .read =
         [] {
           std::uint64_t word;
           asm volatile("movfcsr2gr %0, $r0" : "=r"(word));
           return word;
         },
     .write = [](std::uint64_t word) { asm volatile("movgr2fcsr $r0, %0"
                                                    :
                                                    : "r"(word)); },
     .kept = 0x31f,
     .changed = 0x10},  // the enable of invalid operations
};

#else
#error "Which floating-point control words does a function keep?"
#endif

// --- the unwinder -------------------------------------------------------------------------------

#ifdef __ARM_EABI__
// The EHABI knows no end of the stack: a frame without unwind information is one. The walker does
// not see that frame.
inline constexpr _Unwind_Reason_Code kEndOfWalk = _URC_FAILURE;
inline constexpr _Unwind_Reason_Code kStopWalk = _URC_FAILURE;
inline constexpr bool kWalksLastFrame = false;
#else
inline constexpr _Unwind_Reason_Code kEndOfWalk = _URC_END_OF_STACK;
inline constexpr _Unwind_Reason_Code kStopWalk = _URC_NORMAL_STOP;
inline constexpr bool kWalksLastFrame = true;
#endif

}  // namespace greenlet::tests
