// The register swap for 64-bit POWER, little-endian, ELFv2. What lies here: leaving one stack and
// entering another, and the frame a new context starts from. What does not: the C++ exception state
// and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (ELFv2 2.2: r14 to r31,
// f14 to f31, v20 to v31, the fields 2 to 4 of CR and the control bits of FPSCR belong to the caller;
// the TOC pointer r2 does within one library):
//
//   sp + | 0x00       | 0x18 | 0x20  | 0x30 | ... | 0xb8 | 0xc0 | ... | 0x148 | 0x150 | ... | 0x200 | 0x210
//        | back chain | r2   | FPSCR | r14  |     | r31  | f14  |     | f31   | v20   |     | v31   | <- sp after
//
// CR and LR lie in the header of the caller's frame, where the ABI puts them: 0x218 and 0x220.
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes r1. Unwind information names some registers by numbers: 32 and up
// are f0 and up, 65 is LR, 70 CR, 77 and up are v0 and up.

#if _CALL_ELF != 2 || !defined(__LITTLE_ENDIAN__)
#error "only the ABI ELFv2, little-endian"
#endif

        .machine power8
        .abiversion 2
        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       r3                      r3              r4           r5
        .globl  greenlet_context_switch
        .hidden greenlet_context_switch
        .type   greenlet_context_switch, @function
        .p2align 6
greenlet_context_switch:
        .cfi_startproc
        mflr    %r0
        std     %r0, 16(%r1)
        .cfi_offset 65, 16
        mfcr    %r0
        stw     %r0, 8(%r1)
        .cfi_offset 70, 8
        stdu    %r1, -0x210(%r1)
        .cfi_def_cfa_offset 0x210
        std     %r2, 0x18(%r1)
        std     %r14, 0x30(%r1)
        .cfi_offset 14, -0x1e0
        std     %r15, 0x38(%r1)
        .cfi_offset 15, -0x1d8
        std     %r16, 0x40(%r1)
        .cfi_offset 16, -0x1d0
        std     %r17, 0x48(%r1)
        .cfi_offset 17, -0x1c8
        std     %r18, 0x50(%r1)
        .cfi_offset 18, -0x1c0
        std     %r19, 0x58(%r1)
        .cfi_offset 19, -0x1b8
        std     %r20, 0x60(%r1)
        .cfi_offset 20, -0x1b0
        std     %r21, 0x68(%r1)
        .cfi_offset 21, -0x1a8
        std     %r22, 0x70(%r1)
        .cfi_offset 22, -0x1a0
        std     %r23, 0x78(%r1)
        .cfi_offset 23, -0x198
        std     %r24, 0x80(%r1)
        .cfi_offset 24, -0x190
        std     %r25, 0x88(%r1)
        .cfi_offset 25, -0x188
        std     %r26, 0x90(%r1)
        .cfi_offset 26, -0x180
        std     %r27, 0x98(%r1)
        .cfi_offset 27, -0x178
        std     %r28, 0xa0(%r1)
        .cfi_offset 28, -0x170
        std     %r29, 0xa8(%r1)
        .cfi_offset 29, -0x168
        std     %r30, 0xb0(%r1)
        .cfi_offset 30, -0x160
        std     %r31, 0xb8(%r1)
        .cfi_offset 31, -0x158
        stfd    %f14, 0xc0(%r1)
        .cfi_offset 46, -0x150
        stfd    %f15, 0xc8(%r1)
        .cfi_offset 47, -0x148
        stfd    %f16, 0xd0(%r1)
        .cfi_offset 48, -0x140
        stfd    %f17, 0xd8(%r1)
        .cfi_offset 49, -0x138
        stfd    %f18, 0xe0(%r1)
        .cfi_offset 50, -0x130
        stfd    %f19, 0xe8(%r1)
        .cfi_offset 51, -0x128
        stfd    %f20, 0xf0(%r1)
        .cfi_offset 52, -0x120
        stfd    %f21, 0xf8(%r1)
        .cfi_offset 53, -0x118
        stfd    %f22, 0x100(%r1)
        .cfi_offset 54, -0x110
        stfd    %f23, 0x108(%r1)
        .cfi_offset 55, -0x108
        stfd    %f24, 0x110(%r1)
        .cfi_offset 56, -0x100
        stfd    %f25, 0x118(%r1)
        .cfi_offset 57, -0xf8
        stfd    %f26, 0x120(%r1)
        .cfi_offset 58, -0xf0
        stfd    %f27, 0x128(%r1)
        .cfi_offset 59, -0xe8
        stfd    %f28, 0x130(%r1)
        .cfi_offset 60, -0xe0
        stfd    %f29, 0x138(%r1)
        .cfi_offset 61, -0xd8
        stfd    %f30, 0x140(%r1)
        .cfi_offset 62, -0xd0
        stfd    %f31, 0x148(%r1)
        .cfi_offset 63, -0xc8
        addi    %r11, %r1, 0x150
        addi    %r12, %r1, 0x160
        li      %r10, 0x00
        stvx    %v20, %r11, %r10
        .cfi_offset 97, -0xc0
        stvx    %v21, %r12, %r10
        .cfi_offset 98, -0xb0
        li      %r10, 0x20
        stvx    %v22, %r11, %r10
        .cfi_offset 99, -0xa0
        stvx    %v23, %r12, %r10
        .cfi_offset 100, -0x90
        li      %r10, 0x40
        stvx    %v24, %r11, %r10
        .cfi_offset 101, -0x80
        stvx    %v25, %r12, %r10
        .cfi_offset 102, -0x70
        li      %r10, 0x60
        stvx    %v26, %r11, %r10
        .cfi_offset 103, -0x60
        stvx    %v27, %r12, %r10
        .cfi_offset 104, -0x50
        li      %r10, 0x80
        stvx    %v28, %r11, %r10
        .cfi_offset 105, -0x40
        stvx    %v29, %r12, %r10
        .cfi_offset 106, -0x30
        li      %r10, 0xa0
        stvx    %v30, %r11, %r10
        .cfi_offset 107, -0x20
        stvx    %v31, %r12, %r10
        .cfi_offset 108, -0x10
        mffs    %f0
        mfvsrd  %r9, 0
        std     %r9, 0x20(%r1)

        std     %r1, 0(%r3)
        mr      %r1, %r4

        // Writing FPSCR stalls the pipeline. Only the enables and the two rounding modes count: the
        // rest are flags of what has happened, which calls do not preserve.
        ld      %r10, 0x20(%r1)
        xor     %r9, %r9, %r10
        clrldi  %r10, %r9, 56           // enables, NI, RN
        rldicl  %r9, %r9, 32, 61        // DRN
        or.     %r9, %r9, %r10
        bne     .Lreload
.Lrestore:
        addi    %r11, %r1, 0x150
        addi    %r12, %r1, 0x160
        li      %r10, 0x00
        lvx     %v20, %r11, %r10
        lvx     %v21, %r12, %r10
        li      %r10, 0x20
        lvx     %v22, %r11, %r10
        lvx     %v23, %r12, %r10
        li      %r10, 0x40
        lvx     %v24, %r11, %r10
        lvx     %v25, %r12, %r10
        li      %r10, 0x60
        lvx     %v26, %r11, %r10
        lvx     %v27, %r12, %r10
        li      %r10, 0x80
        lvx     %v28, %r11, %r10
        lvx     %v29, %r12, %r10
        li      %r10, 0xa0
        lvx     %v30, %r11, %r10
        lvx     %v31, %r12, %r10
        lfd     %f14, 0xc0(%r1)
        lfd     %f15, 0xc8(%r1)
        lfd     %f16, 0xd0(%r1)
        lfd     %f17, 0xd8(%r1)
        lfd     %f18, 0xe0(%r1)
        lfd     %f19, 0xe8(%r1)
        lfd     %f20, 0xf0(%r1)
        lfd     %f21, 0xf8(%r1)
        lfd     %f22, 0x100(%r1)
        lfd     %f23, 0x108(%r1)
        lfd     %f24, 0x110(%r1)
        lfd     %f25, 0x118(%r1)
        lfd     %f26, 0x120(%r1)
        lfd     %f27, 0x128(%r1)
        lfd     %f28, 0x130(%r1)
        lfd     %f29, 0x138(%r1)
        lfd     %f30, 0x140(%r1)
        lfd     %f31, 0x148(%r1)
        ld      %r14, 0x30(%r1)
        ld      %r15, 0x38(%r1)
        ld      %r16, 0x40(%r1)
        ld      %r17, 0x48(%r1)
        ld      %r18, 0x50(%r1)
        ld      %r19, 0x58(%r1)
        ld      %r20, 0x60(%r1)
        ld      %r21, 0x68(%r1)
        ld      %r22, 0x70(%r1)
        ld      %r23, 0x78(%r1)
        ld      %r24, 0x80(%r1)
        ld      %r25, 0x88(%r1)
        ld      %r26, 0x90(%r1)
        ld      %r27, 0x98(%r1)
        ld      %r28, 0xa0(%r1)
        ld      %r29, 0xa8(%r1)
        ld      %r30, 0xb0(%r1)
        ld      %r31, 0xb8(%r1)
        ld      %r2, 0x18(%r1)
        .cfi_remember_state
        // Until r1 moves, the slots of the frame still hold the values of the registers. Those of CR
        // and LR are above it, and hold them until the end.
        addi    %r1, %r1, 0x210
        .cfi_def_cfa_offset 0
        .cfi_restore 14
        .cfi_restore 15
        .cfi_restore 16
        .cfi_restore 17
        .cfi_restore 18
        .cfi_restore 19
        .cfi_restore 20
        .cfi_restore 21
        .cfi_restore 22
        .cfi_restore 23
        .cfi_restore 24
        .cfi_restore 25
        .cfi_restore 26
        .cfi_restore 27
        .cfi_restore 28
        .cfi_restore 29
        .cfi_restore 30
        .cfi_restore 31
        .cfi_restore 46
        .cfi_restore 47
        .cfi_restore 48
        .cfi_restore 49
        .cfi_restore 50
        .cfi_restore 51
        .cfi_restore 52
        .cfi_restore 53
        .cfi_restore 54
        .cfi_restore 55
        .cfi_restore 56
        .cfi_restore 57
        .cfi_restore 58
        .cfi_restore 59
        .cfi_restore 60
        .cfi_restore 61
        .cfi_restore 62
        .cfi_restore 63
        .cfi_restore 97
        .cfi_restore 98
        .cfi_restore 99
        .cfi_restore 100
        .cfi_restore 101
        .cfi_restore 102
        .cfi_restore 103
        .cfi_restore 104
        .cfi_restore 105
        .cfi_restore 106
        .cfi_restore 107
        .cfi_restore 108
        ld      %r0, 16(%r1)
        lwz     %r12, 8(%r1)
        mtlr    %r0
        mtcrf   0x38, %r12
        mr      %r3, %r5
        blr

        .cfi_restore_state
.Lreload:
        lfd     %f0, 0x20(%r1)
        mtfsf   0xff, %f0, 1, 0
        b       .Lrestore
        .cfi_endproc
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       r3                    r3         r4
// Writes the first frames below `top` and returns the stack pointer. The header of the upper frame,
// 32 bytes, is that of greenlet_context_begin; its return address is inside that function, which
// finds the entry in r14. Its back chain is zero: a walker of back chains stops there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, @function
        .p2align 4
greenlet_context_make:
        .cfi_startproc
        mflr    %r0
        .cfi_register 65, 0
        bcl     20, 31, .Lhere
.Lhere:
        mflr    %r9
        mtlr    %r0
        .cfi_restore 65
        addi    %r9, %r9, .Lbegin - .Lhere
        li      %r0, 0
        addi    %r3, %r3, -32
        std     %r0, 0(%r3)
        std     %r0, 8(%r3)             // CR
        std     %r9, 16(%r3)            // LR
        stdu    %r3, -0x210(%r3)
        std     %r2, 0x18(%r3)
        mffs    %f0
        stfd    %f0, 0x20(%r3)
        std     %r4, 0x30(%r3)          // r14
        li      %r9, (0x210 - 0x38) / 8
        mtctr   %r9
        addi    %r9, %r3, 0x30
.Lzero:
        stdu    %r0, 8(%r9)
        bdnz    .Lzero
        blr
        .cfi_endproc
        .size   greenlet_context_make, .-greenlet_context_make

// The outermost frame of every context: calls the entry with the first message, which the switch
// left in r3. Its return address is undefined, which tells every unwinder (debuggers, C++
// exceptions, the forced unwinding of pthread_exit) that the stack ends here.
        .globl  greenlet_context_begin
        .hidden greenlet_context_begin
        .type   greenlet_context_begin, @function
        .p2align 4
greenlet_context_begin:
        .cfi_startproc
        .cfi_def_cfa 1, 32
        .cfi_undefined 65
        nop                             // unwinders look up one byte before a return address
.Lbegin:
        mr      %r12, %r14              // where a function expects its own address
        mtctr   %r12
        bctrl
        trap                            // an entry never returns
        .cfi_endproc
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       r3                    r3           r4                        r5
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by r31, or by the back chain. It is marked as the frame of a signal
// handler, because only for such a frame gdb accepts that the caller is on another stack, which may
// lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, @function
        .p2align 4
greenlet_context_call:
        .cfi_startproc
        .cfi_signal_frame
        mflr    %r0
        std     %r0, 16(%r1)
        .cfi_offset 65, 16
        std     %r31, -8(%r1)
        .cfi_offset 31, -8
        stdu    %r1, -0x30(%r1)
        .cfi_def_cfa_offset 0x30
        std     %r2, 0x18(%r1)
        mr      %r31, %r1
        .cfi_def_cfa_register 31
        addi    %r9, %r3, -(0x120 + 0x20) // a leaf function's red zone, and a frame's header
        clrrdi  %r9, %r9, 4
        std     %r31, 0(%r9)            // the back chain
        mr      %r1, %r9
        mr      %r12, %r4
        mtctr   %r12
        mr      %r3, %r5
        bctrl
        mr      %r1, %r31
        .cfi_def_cfa_register 1
        ld      %r2, 0x18(%r1)
        ld      %r31, 0x28(%r1)
        addi    %r1, %r1, 0x30
        .cfi_def_cfa_offset 0
        .cfi_restore 31
        ld      %r0, 16(%r1)
        mtlr    %r0
        blr
        .cfi_endproc
        .size   greenlet_context_call, .-greenlet_context_call

// The architecture has no landing pads. Return addresses are not hashed (hashst), as no function here
// knows whether its callers expect it.
        .section .note.GNU-stack, "", @progbits
