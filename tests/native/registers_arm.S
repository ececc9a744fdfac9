// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: r4 to r11, d8 to d15.
        .syntax unified
        .arch   armv7-a
        .fpu    vfpv3-d16
        .arm
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, %function
switch_with_registers:
        .fnstart
        push    {r4-r12, lr}
        .save   {r4-r12, lr}
        vpush   {d8-d15}
        .vsave  {d8-d15}
        mov     r12, r3
        vldr    d8, [r12, #0x20]
        vldr    d9, [r12, #0x28]
        vldr    d10, [r12, #0x30]
        vldr    d11, [r12, #0x38]
        vldr    d12, [r12, #0x40]
        vldr    d13, [r12, #0x48]
        vldr    d14, [r12, #0x50]
        vldr    d15, [r12, #0x58]
        ldm     r12, {r4-r11}
        bl      greenlet_context_switch
        ldr     r12, [sp, #0x68]        // out
        stm     r12, {r4-r11}
        vstr    d8, [r12, #0x20]
        vstr    d9, [r12, #0x28]
        vstr    d10, [r12, #0x30]
        vstr    d11, [r12, #0x38]
        vstr    d12, [r12, #0x40]
        vstr    d13, [r12, #0x48]
        vstr    d14, [r12, #0x50]
        vstr    d15, [r12, #0x58]
        vpop    {d8-d15}
        pop     {r4-r12, pc}
        .fnend
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", %progbits
