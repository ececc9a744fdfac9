// The register swap for s390x (IBM Z, 64 bits), ELF. What lies here: leaving one stack and entering
// another, and the frame a new context starts from. What does not: the C++ exception state and the
// sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (ELF ABI s390x: r6 to
// r13, r15, f8 to f15 and the control bits of FPC belong to the caller):
//
//   sp + | 0x00 | 0x08 | ... | 0x38 | 0x40 | 0x50       | 0x80 | ... | 0xb8 | 0xc0 | 0xc8
//        | f8   | f9   |     | f15  | FPC  | sp after-> | r6   |     | r13  | r14  | r15
//
// Every caller provides a save area of 160 bytes, from its stack pointer on: r6 to r15 lie there, as
// in every other frame. r14 is the return address.
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes r15.

        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       r2                      r2              r3           r4
        .globl  greenlet_context_switch
        .hidden greenlet_context_switch
        .type   greenlet_context_switch, @function
        .p2align 6
greenlet_context_switch:
        .cfi_startproc
        stmg    %r6, %r15, 0x30(%r15)
        .cfi_offset %r6, -0x70
        .cfi_offset %r7, -0x68
        .cfi_offset %r8, -0x60
        .cfi_offset %r9, -0x58
        .cfi_offset %r10, -0x50
        .cfi_offset %r11, -0x48
        .cfi_offset %r12, -0x40
        .cfi_offset %r13, -0x38
        .cfi_offset %r14, -0x30
        .cfi_offset %r15, -0x28
        aghi    %r15, -0x50
        .cfi_def_cfa_offset 0xf0
        std     %f8, 0x00(%r15)
        .cfi_offset %f8, -0xf0
        std     %f9, 0x08(%r15)
        .cfi_offset %f9, -0xe8
        std     %f10, 0x10(%r15)
        .cfi_offset %f10, -0xe0
        std     %f11, 0x18(%r15)
        .cfi_offset %f11, -0xd8
        std     %f12, 0x20(%r15)
        .cfi_offset %f12, -0xd0
        std     %f13, 0x28(%r15)
        .cfi_offset %f13, -0xc8
        std     %f14, 0x30(%r15)
        .cfi_offset %f14, -0xc0
        std     %f15, 0x38(%r15)
        .cfi_offset %f15, -0xb8
        efpc    %r0
        st      %r0, 0x40(%r15)

        stg     %r15, 0(%r2)
        lgr     %r15, %r3

        // Writing FPC is slow. Only the masks and the rounding modes count: the rest are flags of what
        // has happened, which calls do not preserve.
        x       %r0, 0x40(%r15)
        nilf    %r0, 0xff0000ff
        jne     .Lreload
.Lrestore:
        ld      %f8, 0x00(%r15)
        ld      %f9, 0x08(%r15)
        ld      %f10, 0x10(%r15)
        ld      %f11, 0x18(%r15)
        ld      %f12, 0x20(%r15)
        ld      %f13, 0x28(%r15)
        ld      %f14, 0x30(%r15)
        ld      %f15, 0x38(%r15)
        .cfi_remember_state
        lmg     %r6, %r15, 0x80(%r15)
        .cfi_def_cfa_offset 0xa0
        .cfi_restore %r6
        .cfi_restore %r7
        .cfi_restore %r8
        .cfi_restore %r9
        .cfi_restore %r10
        .cfi_restore %r11
        .cfi_restore %r12
        .cfi_restore %r13
        .cfi_restore %r14
        .cfi_restore %r15
        .cfi_restore %f8
        .cfi_restore %f9
        .cfi_restore %f10
        .cfi_restore %f11
        .cfi_restore %f12
        .cfi_restore %f13
        .cfi_restore %f14
        .cfi_restore %f15
        lgr     %r2, %r4
        br      %r14

        .cfi_restore_state
.Lreload:
        lfpc    0x40(%r15)
        j       .Lrestore
        .cfi_endproc
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       r2                    r2         r3
// Writes the first frame below `top` and returns its stack pointer. The highest 160 bytes are the save
// area that greenlet_context_begin provides to the entry. The frame's return address is inside
// that function, which finds the entry in r6. The back chain is zero: a walker of back chains stops
// there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, @function
        .p2align 4
greenlet_context_make:
        .cfi_startproc
        aghi    %r2, -0xa0
        lgr     %r5, %r2                // r15 of greenlet_context_begin
        aghi    %r2, -0x50
        xc      0x00(0xf0, %r2), 0x00(%r2)
        stfpc   0x40(%r2)
        larl    %r4, .Lbegin
        stg     %r3, 0x80(%r2)          // r6
        stg     %r4, 0xc0(%r2)          // r14
        stg     %r5, 0xc8(%r2)          // r15
        br      %r14
        .cfi_endproc
        .size   greenlet_context_make, .-greenlet_context_make

// The outermost frame of every context: calls the entry with the first message, which the switch
// left in r2. Its return address is undefined, which tells every unwinder (debuggers, C++
// exceptions, the forced unwinding of pthread_exit) that the stack ends here.
        .globl  greenlet_context_begin
        .hidden greenlet_context_begin
        .type   greenlet_context_begin, @function
        .p2align 4
greenlet_context_begin:
        .cfi_startproc
        .cfi_undefined %r14
        nopr    %r0                     // unwinders look up one byte before a return address
.Lbegin:
        basr    %r14, %r6
        j       .+2                     // an entry never returns
        .cfi_endproc
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       r2                    r2           r3                        r4
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by r11, or by the back chain. It is marked as the frame of a signal
// handler, because only for such a frame gdb accepts that the caller is on another stack, which may
// lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, @function
        .p2align 4
greenlet_context_call:
        .cfi_startproc
        .cfi_signal_frame
        stmg    %r11, %r15, 0x58(%r15)
        .cfi_offset %r11, -0x48
        .cfi_offset %r12, -0x40
        .cfi_offset %r13, -0x38
        .cfi_offset %r14, -0x30
        .cfi_offset %r15, -0x28
        lgr     %r11, %r15
        .cfi_def_cfa_register %r11
        aghi    %r2, -(0x80 + 0xa0)     // a red zone, which the ABI does not have, and the save area
        nill    %r2, 0xfff8             // aligned to 8 bytes
        lgr     %r15, %r2
        stg     %r11, 0x00(%r15)        // the back chain
        lgr     %r2, %r4
        basr    %r14, %r3
        lmg     %r11, %r15, 0x58(%r11)
        .cfi_def_cfa_register %r15
        .cfi_restore %r11
        .cfi_restore %r12
        .cfi_restore %r13
        .cfi_restore %r14
        .cfi_restore %r15
        br      %r14
        .cfi_endproc
        .size   greenlet_context_call, .-greenlet_context_call

// The architecture has no landing pads.
        .section .note.GNU-stack, "", @progbits
