// The register swap for ARM with 32 bits (ARMv7-A), AAPCS with VFP registers (armhf), ELF. What lies
// here: leaving one stack and entering another, and the frame a new context starts from. What does
// not: the C++ exception state and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (AAPCS 6.1: r4 to r11,
// d8 to d15 and the control bits of FPSCR belong to the caller):
//
//   sp + | 0x00 | 0x08 | ... | 0x38 | 0x40  | 0x44 | 0x48 | ... | 0x60 | 0x64 | 0x68
//        | d8   | d9   |     | d15  | FPSCR | r4   | r5   |     | r11  | lr   | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes sp. There are two sets, as on this architecture usual: the tables
// of the EHABI (.fnstart and so on) for C++ exceptions and pthread_exit, which are right where a
// function can be called; and .debug_frame for debuggers, which is right at every instruction. It
// names registers by numbers: 11 is r11, 14 lr, 264 and up are d8 and up.

#ifndef __ARM_PCS_VFP
#error "only the ABI with VFP registers (armhf)"
#endif

        .syntax unified
        .arch   armv7-a
        .fpu    vfpv3-d16
        .arm
        .cfi_sections .debug_frame
        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       r0                      r0              r1           r2
        .globl  greenlet_context_switch
        .hidden greenlet_context_switch
        .type   greenlet_context_switch, %function
        .p2align 6
greenlet_context_switch:
        .fnstart
        .cfi_startproc
        vmrs    r3, fpscr
        push    {r3-r11, lr}
        .save   {r4-r11, lr}
        .pad    #4
        .cfi_def_cfa_offset 0x28
        .cfi_offset 4, -0x24
        .cfi_offset 5, -0x20
        .cfi_offset 6, -0x1c
        .cfi_offset 7, -0x18
        .cfi_offset 8, -0x14
        .cfi_offset 9, -0x10
        .cfi_offset 10, -0x0c
        .cfi_offset 11, -0x08
        .cfi_offset 14, -0x04
        vpush   {d8-d15}
        .vsave  {d8-d15}
        .cfi_def_cfa_offset 0x68
        .cfi_offset 264, -0x68
        .cfi_offset 265, -0x60
        .cfi_offset 266, -0x58
        .cfi_offset 267, -0x50
        .cfi_offset 268, -0x48
        .cfi_offset 269, -0x40
        .cfi_offset 270, -0x38
        .cfi_offset 271, -0x30

        str     sp, [r0]
        mov     sp, r1

        // Writing FPSCR stalls the pipeline. Only the bits 8 to 26 count: the others are flags of what
        // has happened, which calls do not preserve.
        ldr     r12, [sp, #0x40]
        eor     r3, r3, r12
        lsl     r3, r3, #5
        lsrs    r3, r3, #13
        bne     .Lreload
.Lrestore:
        mov     r0, r2
        vpop    {d8-d15}
        .cfi_remember_state
        .cfi_def_cfa_offset 0x28
        .cfi_restore 264
        .cfi_restore 265
        .cfi_restore 266
        .cfi_restore 267
        .cfi_restore 268
        .cfi_restore 269
        .cfi_restore 270
        .cfi_restore 271
        pop     {r3-r11, pc}

        .cfi_restore_state
.Lreload:
        vmsr    fpscr, r12
        b       .Lrestore
        .cfi_endproc
        .fnend
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       r0                    r0         r1
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in r4. r11 is zero: a walker of frame pointers
// stops there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, %function
        .p2align 4
greenlet_context_make:
        .fnstart
        .cfi_startproc
        adr     r2, .Lbegin
        mov     r3, #0
        str     r2, [r0, #-0x04]!       // lr
        str     r3, [r0, #-0x04]!       // r11 to r5
        str     r3, [r0, #-0x04]!
        str     r3, [r0, #-0x04]!
        str     r3, [r0, #-0x04]!
        str     r3, [r0, #-0x04]!
        str     r3, [r0, #-0x04]!
        str     r3, [r0, #-0x04]!
        str     r1, [r0, #-0x04]!       // r4
        vmrs    r2, fpscr
        str     r2, [r0, #-0x04]!
        sub     r0, r0, #0x40           // d8 to d15
        mov     r2, #0x3c
.Lzero:
        str     r3, [r0, r2]
        subs    r2, r2, #4
        bge     .Lzero
        bx      lr
        .cfi_endproc
        .cantunwind
        .fnend
        .size   greenlet_context_make, .-greenlet_context_make

// The outermost frame of every context: calls the entry with the first message, which the switch
// left in r0. .cantunwind, and for debuggers the undefined return address, tell every unwinder
// (debuggers, C++ exceptions, the forced unwinding of pthread_exit) that the stack ends here.
        .globl  greenlet_context_begin
        .hidden greenlet_context_begin
        .type   greenlet_context_begin, %function
        .p2align 4
greenlet_context_begin:
        .fnstart
        .cfi_startproc
        .cfi_def_cfa 13, 0
        .cfi_undefined 14
        nop                             // unwinders look up one byte before a return address
.Lbegin:
        blx     r4
        udf     #0                      // an entry never returns
        .cfi_endproc
        .cantunwind
        .fnend
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       r0                    r0           r1                        r2
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by r11. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, %function
        .p2align 4
greenlet_context_call:
        .fnstart
        .cfi_startproc
        .cfi_signal_frame
        push    {r11, lr}
        .save   {r11, lr}
        .cfi_def_cfa_offset 0x08
        .cfi_offset 11, -0x08
        .cfi_offset 14, -0x04
        mov     r11, sp
        .setfp  r11, sp
        .cfi_def_cfa_register 11
        sub     r12, r0, #0x80          // a red zone, which the ABI does not have
        bic     sp, r12, #7
        mov     r0, r2
        blx     r1
        mov     sp, r11
        .cfi_def_cfa_register 13
        pop     {r11, pc}
        .cfi_endproc
        .fnend
        .size   greenlet_context_call, .-greenlet_context_call

// The architecture has no landing pads.
        .section .note.GNU-stack, "", %progbits
