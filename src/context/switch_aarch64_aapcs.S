// The register swap for AArch64, AAPCS64, ELF and Mach-O. What lies here: leaving one stack and
// entering another, and the frame a new context starts from. What does not: the C++ exception state
// and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (AAPCS64 6.1: x19 to
// x29, the lower halves of v8 to v15 and FPCR belong to the caller):
//
//   sp + | 0x00      | 0x10      | 0x20      | 0x30      | 0x40      | 0x50
//        | x29   x30 | x19   x20 | x21   x22 | x23   x24 | x25   x26 | x27   x28
//   sp + | 0x60      | 0x70      | 0x80      | 0x90      | 0xa0      | 0xb0
//        | d8    d9  | d10   d11 | d12   d13 | d14   d15 | FPCR    - | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes sp. x29 and x30 lie lowest, as in every other frame record.

#include "assembly.inc"

        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       x0                      x0              x1           x2
        .p2align 6
        function greenlet_context_switch
        .cfi_startproc
        hint    #34                     // bti c
        stp     x29, x30, [sp, #-0xb0]!
        .cfi_def_cfa_offset 0xb0
        .cfi_offset x29, -0xb0
        .cfi_offset x30, -0xa8
        stp     x19, x20, [sp, #0x10]
        .cfi_offset x19, -0xa0
        .cfi_offset x20, -0x98
        stp     x21, x22, [sp, #0x20]
        .cfi_offset x21, -0x90
        .cfi_offset x22, -0x88
        stp     x23, x24, [sp, #0x30]
        .cfi_offset x23, -0x80
        .cfi_offset x24, -0x78
        stp     x25, x26, [sp, #0x40]
        .cfi_offset x25, -0x70
        .cfi_offset x26, -0x68
        stp     x27, x28, [sp, #0x50]
        .cfi_offset x27, -0x60
        .cfi_offset x28, -0x58
        stp     d8, d9, [sp, #0x60]
        .cfi_offset d8, -0x50
        .cfi_offset d9, -0x48
        stp     d10, d11, [sp, #0x70]
        .cfi_offset d10, -0x40
        .cfi_offset d11, -0x38
        stp     d12, d13, [sp, #0x80]
        .cfi_offset d12, -0x30
        .cfi_offset d13, -0x28
        stp     d14, d15, [sp, #0x90]
        .cfi_offset d14, -0x20
        .cfi_offset d15, -0x18
        mrs     x9, fpcr
        str     x9, [sp, #0xa0]

        mov     x10, sp
        str     x10, [x0]
        mov     sp, x1

        // Writing FPCR serializes on many cores, reading does not. It holds no sticky flags (those
        // are in FPSR), so it differs only if a program changed its rounding mode or traps.
        ldr     x10, [sp, #0xa0]
        cmp     x9, x10
        b.ne    LOCAL(reload)
LOCAL(restore):
        ldp     d14, d15, [sp, #0x90]
        ldp     d12, d13, [sp, #0x80]
        ldp     d10, d11, [sp, #0x70]
        ldp     d8, d9, [sp, #0x60]
        ldp     x27, x28, [sp, #0x50]
        ldp     x25, x26, [sp, #0x40]
        ldp     x23, x24, [sp, #0x30]
        ldp     x21, x22, [sp, #0x20]
        ldp     x19, x20, [sp, #0x10]
        .cfi_remember_state
        // Until sp moves, the slots of the frame still hold the values of the registers.
        ldp     x29, x30, [sp], #0xb0
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        .cfi_restore x19
        .cfi_restore x20
        .cfi_restore x21
        .cfi_restore x22
        .cfi_restore x23
        .cfi_restore x24
        .cfi_restore x25
        .cfi_restore x26
        .cfi_restore x27
        .cfi_restore x28
        .cfi_restore d8
        .cfi_restore d9
        .cfi_restore d10
        .cfi_restore d11
        .cfi_restore d12
        .cfi_restore d13
        .cfi_restore d14
        .cfi_restore d15
        mov     x0, x2
        ret

        .cfi_restore_state
LOCAL(reload):
        msr     fpcr, x10
        b       LOCAL(restore)
        .cfi_endproc
        end_function greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       x0                    x0         x1
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in x19. x29 is zero: a walker of frame pointers
// stops there.
        .p2align 4
        function greenlet_context_make
        .cfi_startproc
        hint    #34                     // bti c
        sub     x0, x0, #0xb0
        adr     x9, LOCAL(begin)
        stp     xzr, x9, [x0]
        stp     x1, xzr, [x0, #0x10]
        stp     xzr, xzr, [x0, #0x20]
        stp     xzr, xzr, [x0, #0x30]
        stp     xzr, xzr, [x0, #0x40]
        stp     xzr, xzr, [x0, #0x50]
        stp     xzr, xzr, [x0, #0x60]
        stp     xzr, xzr, [x0, #0x70]
        stp     xzr, xzr, [x0, #0x80]
        stp     xzr, xzr, [x0, #0x90]
        mrs     x9, fpcr
        stp     x9, xzr, [x0, #0xa0]
        ret
        .cfi_endproc
        end_function greenlet_context_make

// The outermost frame of every context: calls the entry with the first message, which the switch
// left in x0. Its return address is undefined, which tells every unwinder (debuggers, C++
// exceptions, the forced unwinding of pthread_exit) that the stack ends here.
        .p2align 4
        function greenlet_context_begin
        .cfi_startproc
        .cfi_def_cfa sp, 0
        .cfi_undefined x30
        nop                             // unwinders look up one byte before a return address
LOCAL(begin):
        hint    #36                     // bti j
        blr     x19
        brk     #1                      // an entry never returns
        .cfi_endproc
        end_function greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       x0                    x0           x1                        x2
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by x29. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .p2align 4
        function greenlet_context_call
        .cfi_startproc
        .cfi_signal_frame
        hint    #34                     // bti c
        stp     x29, x30, [sp, #-0x10]!
        .cfi_def_cfa_offset 0x10
        .cfi_offset x29, -0x10
        .cfi_offset x30, -0x08
        mov     x29, sp
        .cfi_def_cfa_register x29
        sub     x9, x0, #0x80           // a red zone, which some systems have
        and     sp, x9, #~0xf
        mov     x0, x2
        blr     x1
        mov     sp, x29
        .cfi_def_cfa_register sp
        ldp     x29, x30, [sp], #0x10
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        end_function greenlet_context_call

#if !defined(__APPLE__)
// Branch target identification: yes. Return addresses are neither signed nor kept on a guarded
// control stack, so those two marks are absent.
        .section .note.gnu.property, "a", %note
        .p2align 3
        .long   4                       // name size
        .long   16                      // descriptor size
        .long   5                       // NT_GNU_PROPERTY_TYPE_0
        .asciz  "GNU"
        .long   0xc0000000              // GNU_PROPERTY_AARCH64_FEATURE_1_AND
        .long   4
        .long   1                       // GNU_PROPERTY_AARCH64_FEATURE_1_BTI
        .long   0                       // padding

        .section .note.GNU-stack, "", %progbits
#endif
