// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: ebx, ebp, esi, edi.
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, @function
switch_with_registers:
        .cfi_startproc
        endbr32
        pushl   %ebx
        pushl   %ebp
        pushl   %esi
        pushl   %edi
        .cfi_adjust_cfa_offset 16
        subl    $12, %esp
        .cfi_adjust_cfa_offset 12
        movl    0x20(%esp), %eax
        movl    %eax, 0(%esp)
        movl    0x24(%esp), %eax
        movl    %eax, 4(%esp)
        movl    0x28(%esp), %eax
        movl    %eax, 8(%esp)
        movl    0x2c(%esp), %ecx
        movl    0x00(%ecx), %ebx
        movl    0x04(%ecx), %ebp
        movl    0x08(%ecx), %esi
        movl    0x0c(%ecx), %edi
        call    greenlet_context_switch
        movl    0x30(%esp), %ecx
        movl    %ebx, 0x00(%ecx)
        movl    %ebp, 0x04(%ecx)
        movl    %esi, 0x08(%ecx)
        movl    %edi, 0x0c(%ecx)
        addl    $12, %esp
        .cfi_adjust_cfa_offset -12
        popl    %edi
        popl    %esi
        popl    %ebp
        popl    %ebx
        .cfi_adjust_cfa_offset -16
        ret
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", @progbits
