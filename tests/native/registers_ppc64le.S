// void* switch_with_registers(void** from_sp, void* to_sp, void* message,
//                             const std::uintptr_t* in, std::uintptr_t* out)
// Switches with the callee-saved registers loaded from `in`; what they hold afterwards goes to
// `out`. Order: r14 to r31, f14 to f31, v20 to v31, CR.
        .machine power8
        .abiversion 2
        .text
        .globl  switch_with_registers
        .type   switch_with_registers, @function
switch_with_registers:
        .cfi_startproc
        mflr    %r0
        std     %r0, 16(%r1)
        .cfi_offset 65, 16
        mfcr    %r0
        stw     %r0, 8(%r1)
        stdu    %r1, -0x220(%r1)
        .cfi_def_cfa_offset 0x220
        std     %r6, 0x200(%r1)         // in
        std     %r7, 0x208(%r1)         // out
        std     %r14, 0x20(%r1)
        std     %r15, 0x28(%r1)
        std     %r16, 0x30(%r1)
        std     %r17, 0x38(%r1)
        std     %r18, 0x40(%r1)
        std     %r19, 0x48(%r1)
        std     %r20, 0x50(%r1)
        std     %r21, 0x58(%r1)
        std     %r22, 0x60(%r1)
        std     %r23, 0x68(%r1)
        std     %r24, 0x70(%r1)
        std     %r25, 0x78(%r1)
        std     %r26, 0x80(%r1)
        std     %r27, 0x88(%r1)
        std     %r28, 0x90(%r1)
        std     %r29, 0x98(%r1)
        std     %r30, 0xa0(%r1)
        std     %r31, 0xa8(%r1)
        stfd    %f14, 0xb0(%r1)
        stfd    %f15, 0xb8(%r1)
        stfd    %f16, 0xc0(%r1)
        stfd    %f17, 0xc8(%r1)
        stfd    %f18, 0xd0(%r1)
        stfd    %f19, 0xd8(%r1)
        stfd    %f20, 0xe0(%r1)
        stfd    %f21, 0xe8(%r1)
        stfd    %f22, 0xf0(%r1)
        stfd    %f23, 0xf8(%r1)
        stfd    %f24, 0x100(%r1)
        stfd    %f25, 0x108(%r1)
        stfd    %f26, 0x110(%r1)
        stfd    %f27, 0x118(%r1)
        stfd    %f28, 0x120(%r1)
        stfd    %f29, 0x128(%r1)
        stfd    %f30, 0x130(%r1)
        stfd    %f31, 0x138(%r1)
        addi    %r11, %r1, 0x140
        li      %r10, 0x00
        stvx    %v20, %r11, %r10
        li      %r10, 0x10
        stvx    %v21, %r11, %r10
        li      %r10, 0x20
        stvx    %v22, %r11, %r10
        li      %r10, 0x30
        stvx    %v23, %r11, %r10
        li      %r10, 0x40
        stvx    %v24, %r11, %r10
        li      %r10, 0x50
        stvx    %v25, %r11, %r10
        li      %r10, 0x60
        stvx    %v26, %r11, %r10
        li      %r10, 0x70
        stvx    %v27, %r11, %r10
        li      %r10, 0x80
        stvx    %v28, %r11, %r10
        li      %r10, 0x90
        stvx    %v29, %r11, %r10
        li      %r10, 0xa0
        stvx    %v30, %r11, %r10
        li      %r10, 0xb0
        stvx    %v31, %r11, %r10
        ld      %r14, 0x00(%r6)
        ld      %r15, 0x08(%r6)
        ld      %r16, 0x10(%r6)
        ld      %r17, 0x18(%r6)
        ld      %r18, 0x20(%r6)
        ld      %r19, 0x28(%r6)
        ld      %r20, 0x30(%r6)
        ld      %r21, 0x38(%r6)
        ld      %r22, 0x40(%r6)
        ld      %r23, 0x48(%r6)
        ld      %r24, 0x50(%r6)
        ld      %r25, 0x58(%r6)
        ld      %r26, 0x60(%r6)
        ld      %r27, 0x68(%r6)
        ld      %r28, 0x70(%r6)
        ld      %r29, 0x78(%r6)
        ld      %r30, 0x80(%r6)
        ld      %r31, 0x88(%r6)
        lfd     %f14, 0x90(%r6)
        lfd     %f15, 0x98(%r6)
        lfd     %f16, 0xa0(%r6)
        lfd     %f17, 0xa8(%r6)
        lfd     %f18, 0xb0(%r6)
        lfd     %f19, 0xb8(%r6)
        lfd     %f20, 0xc0(%r6)
        lfd     %f21, 0xc8(%r6)
        lfd     %f22, 0xd0(%r6)
        lfd     %f23, 0xd8(%r6)
        lfd     %f24, 0xe0(%r6)
        lfd     %f25, 0xe8(%r6)
        lfd     %f26, 0xf0(%r6)
        lfd     %f27, 0xf8(%r6)
        lfd     %f28, 0x100(%r6)
        lfd     %f29, 0x108(%r6)
        lfd     %f30, 0x110(%r6)
        lfd     %f31, 0x118(%r6)
        addi    %r11, %r6, 0x120
        li      %r10, 0x00
        lxvd2x  %vs52, %r11, %r10
        li      %r10, 0x10
        lxvd2x  %vs53, %r11, %r10
        li      %r10, 0x20
        lxvd2x  %vs54, %r11, %r10
        li      %r10, 0x30
        lxvd2x  %vs55, %r11, %r10
        li      %r10, 0x40
        lxvd2x  %vs56, %r11, %r10
        li      %r10, 0x50
        lxvd2x  %vs57, %r11, %r10
        li      %r10, 0x60
        lxvd2x  %vs58, %r11, %r10
        li      %r10, 0x70
        lxvd2x  %vs59, %r11, %r10
        li      %r10, 0x80
        lxvd2x  %vs60, %r11, %r10
        li      %r10, 0x90
        lxvd2x  %vs61, %r11, %r10
        li      %r10, 0xa0
        lxvd2x  %vs62, %r11, %r10
        li      %r10, 0xb0
        lxvd2x  %vs63, %r11, %r10
        ld      %r0, 0x1e0(%r6)
        mtcrf   0x38, %r0
        bl      greenlet_context_switch
        nop
        ld      %r6, 0x200(%r1)
        ld      %r7, 0x208(%r1)
        std     %r14, 0x00(%r7)
        std     %r15, 0x08(%r7)
        std     %r16, 0x10(%r7)
        std     %r17, 0x18(%r7)
        std     %r18, 0x20(%r7)
        std     %r19, 0x28(%r7)
        std     %r20, 0x30(%r7)
        std     %r21, 0x38(%r7)
        std     %r22, 0x40(%r7)
        std     %r23, 0x48(%r7)
        std     %r24, 0x50(%r7)
        std     %r25, 0x58(%r7)
        std     %r26, 0x60(%r7)
        std     %r27, 0x68(%r7)
        std     %r28, 0x70(%r7)
        std     %r29, 0x78(%r7)
        std     %r30, 0x80(%r7)
        std     %r31, 0x88(%r7)
        stfd    %f14, 0x90(%r7)
        stfd    %f15, 0x98(%r7)
        stfd    %f16, 0xa0(%r7)
        stfd    %f17, 0xa8(%r7)
        stfd    %f18, 0xb0(%r7)
        stfd    %f19, 0xb8(%r7)
        stfd    %f20, 0xc0(%r7)
        stfd    %f21, 0xc8(%r7)
        stfd    %f22, 0xd0(%r7)
        stfd    %f23, 0xd8(%r7)
        stfd    %f24, 0xe0(%r7)
        stfd    %f25, 0xe8(%r7)
        stfd    %f26, 0xf0(%r7)
        stfd    %f27, 0xf8(%r7)
        stfd    %f28, 0x100(%r7)
        stfd    %f29, 0x108(%r7)
        stfd    %f30, 0x110(%r7)
        stfd    %f31, 0x118(%r7)
        addi    %r11, %r7, 0x120
        li      %r10, 0x00
        stxvd2x %vs52, %r11, %r10
        li      %r10, 0x10
        stxvd2x %vs53, %r11, %r10
        li      %r10, 0x20
        stxvd2x %vs54, %r11, %r10
        li      %r10, 0x30
        stxvd2x %vs55, %r11, %r10
        li      %r10, 0x40
        stxvd2x %vs56, %r11, %r10
        li      %r10, 0x50
        stxvd2x %vs57, %r11, %r10
        li      %r10, 0x60
        stxvd2x %vs58, %r11, %r10
        li      %r10, 0x70
        stxvd2x %vs59, %r11, %r10
        li      %r10, 0x80
        stxvd2x %vs60, %r11, %r10
        li      %r10, 0x90
        stxvd2x %vs61, %r11, %r10
        li      %r10, 0xa0
        stxvd2x %vs62, %r11, %r10
        li      %r10, 0xb0
        stxvd2x %vs63, %r11, %r10
        ld      %r0, 0x1e0(%r6)
        mfcr    %r8
        rlwimi  %r0, %r8, 0, 8, 19      // its fields 2 to 4
        std     %r0, 0x1e0(%r7)
        ld      %r14, 0x20(%r1)
        ld      %r15, 0x28(%r1)
        ld      %r16, 0x30(%r1)
        ld      %r17, 0x38(%r1)
        ld      %r18, 0x40(%r1)
        ld      %r19, 0x48(%r1)
        ld      %r20, 0x50(%r1)
        ld      %r21, 0x58(%r1)
        ld      %r22, 0x60(%r1)
        ld      %r23, 0x68(%r1)
        ld      %r24, 0x70(%r1)
        ld      %r25, 0x78(%r1)
        ld      %r26, 0x80(%r1)
        ld      %r27, 0x88(%r1)
        ld      %r28, 0x90(%r1)
        ld      %r29, 0x98(%r1)
        ld      %r30, 0xa0(%r1)
        ld      %r31, 0xa8(%r1)
        lfd     %f14, 0xb0(%r1)
        lfd     %f15, 0xb8(%r1)
        lfd     %f16, 0xc0(%r1)
        lfd     %f17, 0xc8(%r1)
        lfd     %f18, 0xd0(%r1)
        lfd     %f19, 0xd8(%r1)
        lfd     %f20, 0xe0(%r1)
        lfd     %f21, 0xe8(%r1)
        lfd     %f22, 0xf0(%r1)
        lfd     %f23, 0xf8(%r1)
        lfd     %f24, 0x100(%r1)
        lfd     %f25, 0x108(%r1)
        lfd     %f26, 0x110(%r1)
        lfd     %f27, 0x118(%r1)
        lfd     %f28, 0x120(%r1)
        lfd     %f29, 0x128(%r1)
        lfd     %f30, 0x130(%r1)
        lfd     %f31, 0x138(%r1)
        addi    %r11, %r1, 0x140
        li      %r10, 0x00
        lvx     %v20, %r11, %r10
        li      %r10, 0x10
        lvx     %v21, %r11, %r10
        li      %r10, 0x20
        lvx     %v22, %r11, %r10
        li      %r10, 0x30
        lvx     %v23, %r11, %r10
        li      %r10, 0x40
        lvx     %v24, %r11, %r10
        li      %r10, 0x50
        lvx     %v25, %r11, %r10
        li      %r10, 0x60
        lvx     %v26, %r11, %r10
        li      %r10, 0x70
        lvx     %v27, %r11, %r10
        li      %r10, 0x80
        lvx     %v28, %r11, %r10
        li      %r10, 0x90
        lvx     %v29, %r11, %r10
        li      %r10, 0xa0
        lvx     %v30, %r11, %r10
        li      %r10, 0xb0
        lvx     %v31, %r11, %r10
        addi    %r1, %r1, 0x220
        .cfi_def_cfa_offset 0
        lwz     %r0, 8(%r1)
        mtcrf   0x38, %r0
        ld      %r0, 16(%r1)
        mtlr    %r0
        blr
        .cfi_endproc
        .size   switch_with_registers, .-switch_with_registers
        .section .note.GNU-stack, "", @progbits
