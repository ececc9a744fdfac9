// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: rbx, rbp, r12, r13, r14, r15.
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, @function
switch_with_registers:
        .cfi_startproc
        endbr64
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushq   %r8
        .cfi_adjust_cfa_offset 56
        movq    0x00(%rcx), %rbx
        movq    0x08(%rcx), %rbp
        movq    0x10(%rcx), %r12
        movq    0x18(%rcx), %r13
        movq    0x20(%rcx), %r14
        movq    0x28(%rcx), %r15
        call    greenlet_context_switch
        popq    %r8
        movq    %rbx, 0x00(%r8)
        movq    %rbp, 0x08(%r8)
        movq    %r12, 0x10(%r8)
        movq    %r13, 0x18(%r8)
        movq    %r14, 0x20(%r8)
        movq    %r15, 0x28(%r8)
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        .cfi_adjust_cfa_offset -56
        ret
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", @progbits
