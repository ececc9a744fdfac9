// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: x19 to x28, x29, d8 to d15.
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, %function
switch_with_registers:
        .cfi_startproc
        hint    #34                     // bti c
        stp     x29, x30, [sp, #-0xb0]!
        .cfi_def_cfa_offset 0xb0
        .cfi_offset x29, -0xb0
        .cfi_offset x30, -0xa8
        stp     x19, x20, [sp, #0x10]
        stp     x21, x22, [sp, #0x20]
        stp     x23, x24, [sp, #0x30]
        stp     x25, x26, [sp, #0x40]
        stp     x27, x28, [sp, #0x50]
        stp     d8, d9, [sp, #0x60]
        stp     d10, d11, [sp, #0x70]
        stp     d12, d13, [sp, #0x80]
        stp     d14, d15, [sp, #0x90]
        str     x4, [sp, #0xa0]
        ldp     x19, x20, [x3, #0x00]
        ldp     x21, x22, [x3, #0x10]
        ldp     x23, x24, [x3, #0x20]
        ldp     x25, x26, [x3, #0x30]
        ldp     x27, x28, [x3, #0x40]
        ldr     x29, [x3, #0x50]
        ldp     d8, d9, [x3, #0x58]
        ldp     d10, d11, [x3, #0x68]
        ldp     d12, d13, [x3, #0x78]
        ldp     d14, d15, [x3, #0x88]
        bl      greenlet_context_switch
        ldr     x4, [sp, #0xa0]
        stp     x19, x20, [x4, #0x00]
        stp     x21, x22, [x4, #0x10]
        stp     x23, x24, [x4, #0x20]
        stp     x25, x26, [x4, #0x30]
        stp     x27, x28, [x4, #0x40]
        str     x29, [x4, #0x50]
        stp     d8, d9, [x4, #0x58]
        stp     d10, d11, [x4, #0x68]
        stp     d12, d13, [x4, #0x78]
        stp     d14, d15, [x4, #0x88]
        ldp     x19, x20, [sp, #0x10]
        ldp     x21, x22, [sp, #0x20]
        ldp     x23, x24, [sp, #0x30]
        ldp     x25, x26, [sp, #0x40]
        ldp     x27, x28, [sp, #0x50]
        ldp     d8, d9, [sp, #0x60]
        ldp     d10, d11, [sp, #0x70]
        ldp     d12, d13, [sp, #0x80]
        ldp     d14, d15, [sp, #0x90]
        ldp     x29, x30, [sp], #0xb0
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", %progbits
