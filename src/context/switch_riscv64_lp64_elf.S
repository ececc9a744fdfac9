// The register swap for RISC-V, 64 bits, ELF: the ABI lp64d, and lp64, which passes no floating-point
// registers. What lies here: leaving one stack and entering another, and the frame a new context
// starts from. What does not: the C++ exception state and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (psABI: s0 to s11, fs0
// to fs11 and the rounding mode belong to the caller):
//
//   sp + | 0x00 | 0x08 | 0x10 | ... | 0x60 | 0x68 | 0x70 | ... | 0xb8 | 0xc0 | 0xc8 | 0xd0
//        | frm  | fs0  | fs1  |     | fs11 | s1   | s2   |     | s11  | s0   | ra   | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes sp. s0 and ra lie highest, where a walker of frame pointers looks.
// With the ABI lp64 the slots of fs0 to fs11 are unused, because they belong to the callee.

#if defined(__riscv_float_abi_double)
#define SAVES_FS 1
#elif !defined(__riscv_float_abi_soft)
#error "only the ABIs lp64d and lp64"
#endif

        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       a0                      a0              a1           a2
        .globl  greenlet_context_switch
        .hidden greenlet_context_switch
        .type   greenlet_context_switch, @function
        .p2align 6
greenlet_context_switch:
        .cfi_startproc
        auipc   zero, 0                 // lpad 0
        addi    sp, sp, -0xd0
        .cfi_def_cfa_offset 0xd0
        sd      ra, 0xc8(sp)
        .cfi_offset ra, -0x08
        sd      s0, 0xc0(sp)
        .cfi_offset s0, -0x10
        sd      s1, 0x68(sp)
        .cfi_offset s1, -0x68
        sd      s2, 0x70(sp)
        .cfi_offset s2, -0x60
        sd      s3, 0x78(sp)
        .cfi_offset s3, -0x58
        sd      s4, 0x80(sp)
        .cfi_offset s4, -0x50
        sd      s5, 0x88(sp)
        .cfi_offset s5, -0x48
        sd      s6, 0x90(sp)
        .cfi_offset s6, -0x40
        sd      s7, 0x98(sp)
        .cfi_offset s7, -0x38
        sd      s8, 0xa0(sp)
        .cfi_offset s8, -0x30
        sd      s9, 0xa8(sp)
        .cfi_offset s9, -0x28
        sd      s10, 0xb0(sp)
        .cfi_offset s10, -0x20
        sd      s11, 0xb8(sp)
        .cfi_offset s11, -0x18
#ifdef SAVES_FS
        fsd     fs0, 0x08(sp)
        .cfi_offset fs0, -0xc8
        fsd     fs1, 0x10(sp)
        .cfi_offset fs1, -0xc0
        fsd     fs2, 0x18(sp)
        .cfi_offset fs2, -0xb8
        fsd     fs3, 0x20(sp)
        .cfi_offset fs3, -0xb0
        fsd     fs4, 0x28(sp)
        .cfi_offset fs4, -0xa8
        fsd     fs5, 0x30(sp)
        .cfi_offset fs5, -0xa0
        fsd     fs6, 0x38(sp)
        .cfi_offset fs6, -0x98
        fsd     fs7, 0x40(sp)
        .cfi_offset fs7, -0x90
        fsd     fs8, 0x48(sp)
        .cfi_offset fs8, -0x88
        fsd     fs9, 0x50(sp)
        .cfi_offset fs9, -0x80
        fsd     fs10, 0x58(sp)
        .cfi_offset fs10, -0x78
        fsd     fs11, 0x60(sp)
        .cfi_offset fs11, -0x70
#endif
#ifdef __riscv_flen
        frrm    t0
        sd      t0, 0x00(sp)
#endif

        sd      sp, 0(a0)
        mv      sp, a1

#ifdef __riscv_flen
        // Writing the rounding mode may flush the pipeline, reading does not. The other half of fcsr
        // are sticky flags, which calls do not preserve.
        ld      t1, 0x00(sp)
        bne     t0, t1, .Lreload
.Lrestore:
#endif
#ifdef SAVES_FS
        fld     fs11, 0x60(sp)
        fld     fs10, 0x58(sp)
        fld     fs9, 0x50(sp)
        fld     fs8, 0x48(sp)
        fld     fs7, 0x40(sp)
        fld     fs6, 0x38(sp)
        fld     fs5, 0x30(sp)
        fld     fs4, 0x28(sp)
        fld     fs3, 0x20(sp)
        fld     fs2, 0x18(sp)
        fld     fs1, 0x10(sp)
        fld     fs0, 0x08(sp)
#endif
        ld      s11, 0xb8(sp)
        ld      s10, 0xb0(sp)
        ld      s9, 0xa8(sp)
        ld      s8, 0xa0(sp)
        ld      s7, 0x98(sp)
        ld      s6, 0x90(sp)
        ld      s5, 0x88(sp)
        ld      s4, 0x80(sp)
        ld      s3, 0x78(sp)
        ld      s2, 0x70(sp)
        ld      s1, 0x68(sp)
        ld      s0, 0xc0(sp)
        ld      ra, 0xc8(sp)
        .cfi_remember_state
        // Until sp moves, the slots of the frame still hold the values of the registers.
        addi    sp, sp, 0xd0
        .cfi_def_cfa_offset 0
        .cfi_restore ra
        .cfi_restore s0
        .cfi_restore s1
        .cfi_restore s2
        .cfi_restore s3
        .cfi_restore s4
        .cfi_restore s5
        .cfi_restore s6
        .cfi_restore s7
        .cfi_restore s8
        .cfi_restore s9
        .cfi_restore s10
        .cfi_restore s11
#ifdef SAVES_FS
        .cfi_restore fs0
        .cfi_restore fs1
        .cfi_restore fs2
        .cfi_restore fs3
        .cfi_restore fs4
        .cfi_restore fs5
        .cfi_restore fs6
        .cfi_restore fs7
        .cfi_restore fs8
        .cfi_restore fs9
        .cfi_restore fs10
        .cfi_restore fs11
#endif
        mv      a0, a2
        ret

        .cfi_restore_state
#ifdef __riscv_flen
.Lreload:
        fsrm    t1
        j       .Lrestore
#endif
        .cfi_endproc
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       a0                    a0         a1
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in s1. s0 is zero: a walker of frame pointers
// stops there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, @function
        .p2align 4
greenlet_context_make:
        .cfi_startproc
        auipc   zero, 0                 // lpad 0
        addi    a0, a0, -0xd0
#ifdef __riscv_flen
        frrm    t0
        sd      t0, 0x00(a0)
#endif
        sd      zero, 0x08(a0)
        sd      zero, 0x10(a0)
        sd      zero, 0x18(a0)
        sd      zero, 0x20(a0)
        sd      zero, 0x28(a0)
        sd      zero, 0x30(a0)
        sd      zero, 0x38(a0)
        sd      zero, 0x40(a0)
        sd      zero, 0x48(a0)
        sd      zero, 0x50(a0)
        sd      zero, 0x58(a0)
        sd      zero, 0x60(a0)
        sd      a1, 0x68(a0)
        sd      zero, 0x70(a0)
        sd      zero, 0x78(a0)
        sd      zero, 0x80(a0)
        sd      zero, 0x88(a0)
        sd      zero, 0x90(a0)
        sd      zero, 0x98(a0)
        sd      zero, 0xa0(a0)
        sd      zero, 0xa8(a0)
        sd      zero, 0xb0(a0)
        sd      zero, 0xb8(a0)
        sd      zero, 0xc0(a0)
        lla     t0, .Lbegin
        sd      t0, 0xc8(a0)
        ret
        .cfi_endproc
        .size   greenlet_context_make, .-greenlet_context_make

// The outermost frame of every context: calls the entry with the first message, which the switch
// left in a0. Its return address is undefined, which tells every unwinder (debuggers, C++
// exceptions, the forced unwinding of pthread_exit) that the stack ends here.
        .globl  greenlet_context_begin
        .hidden greenlet_context_begin
        .type   greenlet_context_begin, @function
        .p2align 4
greenlet_context_begin:
        .cfi_startproc
        .cfi_def_cfa sp, 0
        .cfi_undefined ra
        nop                             // unwinders look up one byte before a return address
.Lbegin:                                // reached by `ret`, which needs no landing pad
        jalr    s1
        ebreak                          // an entry never returns
        .cfi_endproc
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       a0                    a0           a1                        a2
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by s0. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, @function
        .p2align 4
greenlet_context_call:
        .cfi_startproc
        .cfi_signal_frame
        auipc   zero, 0                 // lpad 0
        addi    sp, sp, -0x10
        .cfi_def_cfa_offset 0x10
        sd      ra, 0x08(sp)
        .cfi_offset ra, -0x08
        sd      s0, 0x00(sp)
        .cfi_offset s0, -0x10
        addi    s0, sp, 0x10
        .cfi_def_cfa s0, 0
        addi    t0, a0, -0x80           // a red zone, which the ABI does not have
        andi    sp, t0, -0x10
        mv      a0, a2
        jalr    a1
        addi    sp, s0, -0x10
        .cfi_def_cfa sp, 0x10
        ld      s0, 0x00(sp)
        ld      ra, 0x08(sp)
        addi    sp, sp, 0x10
        .cfi_def_cfa_offset 0
        .cfi_restore ra
        .cfi_restore s0
        ret
        .cfi_endproc
        .size   greenlet_context_call, .-greenlet_context_call

// There is no note about the landing pads: linkers before binutils 2.45 warn of it. There is none
// about shadow stacks either, as the switch would leave the shadow stack behind.
        .section .note.GNU-stack, "", @progbits
