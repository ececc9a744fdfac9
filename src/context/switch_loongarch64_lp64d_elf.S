// The register swap for LoongArch, 64 bits, the ABI lp64d, ELF. What lies here: leaving one stack and
// entering another, and the frame a new context starts from. What does not: the C++ exception state
// and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above (psABI: fp, s0 to s8,
// fs0 to fs7 and the control bits of fcsr0 belong to the caller):
//
//   sp + | 0x00  | 0x08 | 0x10 | ... | 0x40 | 0x48 | 0x50 | ... | 0x88 | 0x90 | 0x98 | 0xa0
//        | fcsr0 | fs0  | fs1  |     | fs7  | s0   | s1   |     | s8   | fp   | ra   | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes sp. fp and ra lie highest, where a walker of frame pointers looks.
// Unwind information names registers by numbers: 1 is ra, 22 fp, 23 to 31 are s0 to s8, 56 to 63 fs0
// to fs7.

#ifndef __loongarch_double_float
#error "only the ABI lp64d"
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
        addi.d  $sp, $sp, -0xa0
        .cfi_def_cfa_offset 0xa0
        st.d    $ra, $sp, 0x98
        .cfi_offset 1, -0x08
        st.d    $fp, $sp, 0x90
        .cfi_offset 22, -0x10
        st.d    $s0, $sp, 0x48
        .cfi_offset 23, -0x58
        st.d    $s1, $sp, 0x50
        .cfi_offset 24, -0x50
        st.d    $s2, $sp, 0x58
        .cfi_offset 25, -0x48
        st.d    $s3, $sp, 0x60
        .cfi_offset 26, -0x40
        st.d    $s4, $sp, 0x68
        .cfi_offset 27, -0x38
        st.d    $s5, $sp, 0x70
        .cfi_offset 28, -0x30
        st.d    $s6, $sp, 0x78
        .cfi_offset 29, -0x28
        st.d    $s7, $sp, 0x80
        .cfi_offset 30, -0x20
        st.d    $s8, $sp, 0x88
        .cfi_offset 31, -0x18
        fst.d   $fs0, $sp, 0x08
        .cfi_offset 56, -0x98
        fst.d   $fs1, $sp, 0x10
        .cfi_offset 57, -0x90
        fst.d   $fs2, $sp, 0x18
        .cfi_offset 58, -0x88
        fst.d   $fs3, $sp, 0x20
        .cfi_offset 59, -0x80
        fst.d   $fs4, $sp, 0x28
        .cfi_offset 60, -0x78
        fst.d   $fs5, $sp, 0x30
        .cfi_offset 61, -0x70
        fst.d   $fs6, $sp, 0x38
        .cfi_offset 62, -0x68
        fst.d   $fs7, $sp, 0x40
        .cfi_offset 63, -0x60
        movfcsr2gr $t0, $fcsr0
        st.d    $t0, $sp, 0x00

        st.d    $sp, $a0, 0
        move    $sp, $a1

        // Writing fcsr0 stalls the pipeline, reading does not. Only the enables and the rounding mode
        // count: the rest are flags of what has happened, which calls do not preserve.
        ld.d    $t1, $sp, 0x00
        xor     $t0, $t0, $t1
        andi    $t0, $t0, 0x31f
        bnez    $t0, .Lreload
.Lrestore:
        fld.d   $fs7, $sp, 0x40
        fld.d   $fs6, $sp, 0x38
        fld.d   $fs5, $sp, 0x30
        fld.d   $fs4, $sp, 0x28
        fld.d   $fs3, $sp, 0x20
        fld.d   $fs2, $sp, 0x18
        fld.d   $fs1, $sp, 0x10
        fld.d   $fs0, $sp, 0x08
        ld.d    $s8, $sp, 0x88
        ld.d    $s7, $sp, 0x80
        ld.d    $s6, $sp, 0x78
        ld.d    $s5, $sp, 0x70
        ld.d    $s4, $sp, 0x68
        ld.d    $s3, $sp, 0x60
        ld.d    $s2, $sp, 0x58
        ld.d    $s1, $sp, 0x50
        ld.d    $s0, $sp, 0x48
        ld.d    $fp, $sp, 0x90
        ld.d    $ra, $sp, 0x98
        .cfi_remember_state
        // Until sp moves, the slots of the frame still hold the values of the registers.
        addi.d  $sp, $sp, 0xa0
        .cfi_def_cfa_offset 0
        .cfi_restore 1
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
        .cfi_restore 56
        .cfi_restore 57
        .cfi_restore 58
        .cfi_restore 59
        .cfi_restore 60
        .cfi_restore 61
        .cfi_restore 62
        .cfi_restore 63
        move    $a0, $a2
        ret

        .cfi_restore_state
.Lreload:
        movgr2fcsr $fcsr0, $t1
        b       .Lrestore
        .cfi_endproc
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       a0                    a0         a1
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in s0. fp is zero: a walker of frame pointers
// stops there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, @function
        .p2align 4
greenlet_context_make:
        .cfi_startproc
        addi.d  $a0, $a0, -0xa0
        movfcsr2gr $t0, $fcsr0
        st.d    $t0, $a0, 0x00
        st.d    $zero, $a0, 0x08
        st.d    $zero, $a0, 0x10
        st.d    $zero, $a0, 0x18
        st.d    $zero, $a0, 0x20
        st.d    $zero, $a0, 0x28
        st.d    $zero, $a0, 0x30
        st.d    $zero, $a0, 0x38
        st.d    $zero, $a0, 0x40
        st.d    $a1, $a0, 0x48
        st.d    $zero, $a0, 0x50
        st.d    $zero, $a0, 0x58
        st.d    $zero, $a0, 0x60
        st.d    $zero, $a0, 0x68
        st.d    $zero, $a0, 0x70
        st.d    $zero, $a0, 0x78
        st.d    $zero, $a0, 0x80
        st.d    $zero, $a0, 0x88
        st.d    $zero, $a0, 0x90
        la.local $t0, .Lbegin
        st.d    $t0, $a0, 0x98
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
        .cfi_def_cfa 3, 0
        .cfi_undefined 1
        nop                             // unwinders look up one byte before a return address
.Lbegin:
        jirl    $ra, $s0, 0
        break   0                       // an entry never returns
        .cfi_endproc
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       a0                    a0           a1                        a2
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by fp. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, @function
        .p2align 4
greenlet_context_call:
        .cfi_startproc
        .cfi_signal_frame
        addi.d  $sp, $sp, -0x10
        .cfi_def_cfa_offset 0x10
        st.d    $ra, $sp, 0x08
        .cfi_offset 1, -0x08
        st.d    $fp, $sp, 0x00
        .cfi_offset 22, -0x10
        addi.d  $fp, $sp, 0x10
        .cfi_def_cfa 22, 0
        addi.d  $t0, $a0, -0x80         // a red zone, which the ABI does not have
        bstrins.d $t0, $zero, 3, 0      // aligned to 16 bytes
        move    $sp, $t0
        move    $a0, $a2
        jirl    $ra, $a1, 0
        addi.d  $sp, $fp, -0x10
        .cfi_def_cfa 3, 0x10
        ld.d    $fp, $sp, 0x00
        ld.d    $ra, $sp, 0x08
        addi.d  $sp, $sp, 0x10
        .cfi_def_cfa_offset 0
        .cfi_restore 1
        .cfi_restore 22
        ret
        .cfi_endproc
        .size   greenlet_context_call, .-greenlet_context_call

// The architecture has no landing pads.
        .section .note.GNU-stack, "", @progbits
