// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: fp, s0 to s8, fs0 to fs7.
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, @function
switch_with_registers:
        .cfi_startproc
        addi.d  $sp, $sp, -0xa0
        .cfi_def_cfa_offset 0xa0
        st.d    $ra, $sp, 0x98
        .cfi_offset 1, -0x08
        st.d    $a4, $sp, 0x90
        st.d    $fp, $sp, 0x00
        st.d    $s0, $sp, 0x08
        st.d    $s1, $sp, 0x10
        st.d    $s2, $sp, 0x18
        st.d    $s3, $sp, 0x20
        st.d    $s4, $sp, 0x28
        st.d    $s5, $sp, 0x30
        st.d    $s6, $sp, 0x38
        st.d    $s7, $sp, 0x40
        st.d    $s8, $sp, 0x48
        fst.d   $fs0, $sp, 0x50
        fst.d   $fs1, $sp, 0x58
        fst.d   $fs2, $sp, 0x60
        fst.d   $fs3, $sp, 0x68
        fst.d   $fs4, $sp, 0x70
        fst.d   $fs5, $sp, 0x78
        fst.d   $fs6, $sp, 0x80
        fst.d   $fs7, $sp, 0x88
        ld.d    $fp, $a3, 0x00
        ld.d    $s0, $a3, 0x08
        ld.d    $s1, $a3, 0x10
        ld.d    $s2, $a3, 0x18
        ld.d    $s3, $a3, 0x20
        ld.d    $s4, $a3, 0x28
        ld.d    $s5, $a3, 0x30
        ld.d    $s6, $a3, 0x38
        ld.d    $s7, $a3, 0x40
        ld.d    $s8, $a3, 0x48
        fld.d   $fs0, $a3, 0x50
        fld.d   $fs1, $a3, 0x58
        fld.d   $fs2, $a3, 0x60
        fld.d   $fs3, $a3, 0x68
        fld.d   $fs4, $a3, 0x70
        fld.d   $fs5, $a3, 0x78
        fld.d   $fs6, $a3, 0x80
        fld.d   $fs7, $a3, 0x88
        bl      greenlet_context_switch
        ld.d    $a4, $sp, 0x90
        st.d    $fp, $a4, 0x00
        st.d    $s0, $a4, 0x08
        st.d    $s1, $a4, 0x10
        st.d    $s2, $a4, 0x18
        st.d    $s3, $a4, 0x20
        st.d    $s4, $a4, 0x28
        st.d    $s5, $a4, 0x30
        st.d    $s6, $a4, 0x38
        st.d    $s7, $a4, 0x40
        st.d    $s8, $a4, 0x48
        fst.d   $fs0, $a4, 0x50
        fst.d   $fs1, $a4, 0x58
        fst.d   $fs2, $a4, 0x60
        fst.d   $fs3, $a4, 0x68
        fst.d   $fs4, $a4, 0x70
        fst.d   $fs5, $a4, 0x78
        fst.d   $fs6, $a4, 0x80
        fst.d   $fs7, $a4, 0x88
        ld.d    $fp, $sp, 0x00
        ld.d    $s0, $sp, 0x08
        ld.d    $s1, $sp, 0x10
        ld.d    $s2, $sp, 0x18
        ld.d    $s3, $sp, 0x20
        ld.d    $s4, $sp, 0x28
        ld.d    $s5, $sp, 0x30
        ld.d    $s6, $sp, 0x38
        ld.d    $s7, $sp, 0x40
        ld.d    $s8, $sp, 0x48
        fld.d   $fs0, $sp, 0x50
        fld.d   $fs1, $sp, 0x58
        fld.d   $fs2, $sp, 0x60
        fld.d   $fs3, $sp, 0x68
        fld.d   $fs4, $sp, 0x70
        fld.d   $fs5, $sp, 0x78
        fld.d   $fs6, $sp, 0x80
        fld.d   $fs7, $sp, 0x88
        ld.d    $ra, $sp, 0x98
        addi.d  $sp, $sp, 0xa0
        .cfi_def_cfa_offset 0
        .cfi_restore 1
        ret
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", @progbits
