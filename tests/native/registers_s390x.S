// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: r6 to r13, f8 to f15.
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, @function
switch_with_registers:
        .cfi_startproc
        stmg    %r6, %r15, 0x30(%r15)
        .cfi_offset %r6, -0x70
        .cfi_offset %r14, -0x30
        .cfi_offset %r15, -0x28
        aghi    %r15, -(0xa0 + 0x40)
        .cfi_def_cfa_offset 0x180
        std     %f8, 0xa0(%r15)
        std     %f9, 0xa8(%r15)
        std     %f10, 0xb0(%r15)
        std     %f11, 0xb8(%r15)
        std     %f12, 0xc0(%r15)
        std     %f13, 0xc8(%r15)
        std     %f14, 0xd0(%r15)
        std     %f15, 0xd8(%r15)
        lgr     %r1, %r5
        lmg     %r6, %r13, 0x00(%r1)
        ld      %f8, 0x40(%r1)
        ld      %f9, 0x48(%r1)
        ld      %f10, 0x50(%r1)
        ld      %f11, 0x58(%r1)
        ld      %f12, 0x60(%r1)
        ld      %f13, 0x68(%r1)
        ld      %f14, 0x70(%r1)
        ld      %f15, 0x78(%r1)
        brasl   %r14, greenlet_context_switch
        lg      %r1, 0x110(%r15)        // the r6 of the caller: out
        stmg    %r6, %r13, 0x00(%r1)
        std     %f8, 0x40(%r1)
        std     %f9, 0x48(%r1)
        std     %f10, 0x50(%r1)
        std     %f11, 0x58(%r1)
        std     %f12, 0x60(%r1)
        std     %f13, 0x68(%r1)
        std     %f14, 0x70(%r1)
        std     %f15, 0x78(%r1)
        ld      %f8, 0xa0(%r15)
        ld      %f9, 0xa8(%r15)
        ld      %f10, 0xb0(%r15)
        ld      %f11, 0xb8(%r15)
        ld      %f12, 0xc0(%r15)
        ld      %f13, 0xc8(%r15)
        ld      %f14, 0xd0(%r15)
        ld      %f15, 0xd8(%r15)
        lmg     %r6, %r15, 0x110(%r15)
        .cfi_def_cfa_offset 0xa0
        .cfi_restore %r6
        .cfi_restore %r14
        .cfi_restore %r15
        br      %r14
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", @progbits
