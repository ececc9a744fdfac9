// The register swap for x86 with 32 bits, System V ABI, ELF. What lies here: leaving one stack and
// entering another, and the frame a new context starts from. What does not: the C++ exception state
// and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above:
//
//   sp + | 0x00  | 0x04   | 0x08 | 0x0c | 0x10 | 0x14 | 0x18           | 0x1c
//        | MXCSR | x87 CW | edi  | esi  | ebx  | ebp  | return address | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes esp.
//
// The processor must have SSE (Intel's since 1999). The way back is chosen as in
// switch_x86_64_sysv.S: by `ret` to the same call site, by a jump to another.

        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       eax                     4(%esp)         8(%esp)      12(%esp)
        .globl  greenlet_context_switch
        .hidden greenlet_context_switch
        .type   greenlet_context_switch, @function
        .p2align 6
greenlet_context_switch:
        .cfi_startproc
        endbr32
        movl    4(%esp), %eax
        movl    8(%esp), %ecx
        movl    12(%esp), %edx
        pushl   %ebp
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset %ebp, 0
        pushl   %ebx
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset %ebx, 0
        pushl   %esi
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset %esi, 0
        pushl   %edi
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset %edi, 0
        subl    $8, %esp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%esp)
        fnstcw  4(%esp)

        // Loading either control word stalls the pipeline, comparing does not. The low six bits of
        // MXCSR are sticky exception flags: not preserved by calls, hence no reason to reload.
        movl    (%esp), %esi
        movzwl  4(%esp), %edi
        xorl    (%ecx), %esi
        xorw    4(%ecx), %di
        andl    $~0x3f, %esi

        movl    %esp, (%eax)
        movl    0x18(%esp), %eax
        movl    %ecx, %esp

        orl     %edi, %esi
        jne     .Lreload
.Lrestore:
        addl    $8, %esp
        .cfi_adjust_cfa_offset -8
        popl    %edi
        .cfi_adjust_cfa_offset -4
        .cfi_restore %edi
        popl    %esi
        .cfi_adjust_cfa_offset -4
        .cfi_restore %esi
        popl    %ebx
        .cfi_adjust_cfa_offset -4
        .cfi_restore %ebx
        popl    %ebp
        .cfi_adjust_cfa_offset -4
        .cfi_restore %ebp
        cmpl    (%esp), %eax
        movl    %edx, %eax
        jne     .Lother_site
        ret
.Lother_site:
        popl    %ecx
        .cfi_adjust_cfa_offset -4
        .cfi_register %eip, %ecx
        notrack jmp *%ecx               // not the start of a function, so it has no endbr32

        // This lies behind the `ret` in the file, but runs in the state of .Lrestore: the frame is
        // complete.
        .cfi_adjust_cfa_offset 28
        .cfi_offset %eip, -4
        .cfi_rel_offset %ebp, 20
        .cfi_rel_offset %ebx, 16
        .cfi_rel_offset %esi, 12
        .cfi_rel_offset %edi, 8
.Lreload:
        ldmxcsr (%esp)
        fldcw   4(%esp)
        jmp     .Lrestore
        .cfi_endproc
        .size   greenlet_context_switch, .-greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       eax                   4(%esp)    8(%esp)
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in ebx, and 16 bytes for arguments above.
// ebp is zero: a walker of frame pointers stops there.
        .globl  greenlet_context_make
        .hidden greenlet_context_make
        .type   greenlet_context_make, @function
        .p2align 4
greenlet_context_make:
        .cfi_startproc
        endbr32
        movl    4(%esp), %eax
        movl    8(%esp), %edx
        subl    $0x2c, %eax
        stmxcsr 0x00(%eax)
        fnstcw  0x04(%eax)
        xorl    %ecx, %ecx
        movl    %ecx, 0x08(%eax)
        movl    %ecx, 0x0c(%eax)
        movl    %edx, 0x10(%eax)
        movl    %ecx, 0x14(%eax)
        call    .Lhere
.Lhere:
        .cfi_adjust_cfa_offset 4
        popl    %ecx
        .cfi_adjust_cfa_offset -4
        addl    $.Lbegin - .Lhere, %ecx
        movl    %ecx, 0x18(%eax)
        ret
        .cfi_endproc
        .size   greenlet_context_make, .-greenlet_context_make

// The outermost frame of every context: calls the entry with the first message. Its return address
// is undefined, which tells every unwinder (debuggers, C++ exceptions, the forced unwinding of
// pthread_exit) that the stack ends here.
        .globl  greenlet_context_begin
        .hidden greenlet_context_begin
        .type   greenlet_context_begin, @function
        .p2align 4
greenlet_context_begin:
        .cfi_startproc
        .cfi_def_cfa %esp, 0x10
        .cfi_undefined %eip
        nop                             // unwinders look up one byte before a return address
.Lbegin:
        endbr32
        movl    %eax, (%esp)
        call    *%ebx
        ud2                             // an entry never returns
        .cfi_endproc
        .size   greenlet_context_begin, .-greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       eax                   4(%esp)      8(%esp)                   12(%esp)
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by ebp. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .globl  greenlet_context_call
        .hidden greenlet_context_call
        .type   greenlet_context_call, @function
        .p2align 4
greenlet_context_call:
        .cfi_startproc
        .cfi_signal_frame
        endbr32
        pushl   %ebp
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset %ebp, 0
        movl    %esp, %ebp
        .cfi_def_cfa_register %ebp
        movl    8(%ebp), %ecx
        movl    12(%ebp), %eax
        movl    16(%ebp), %edx
        leal    -0x80(%ecx), %esp       // a red zone, which the ABI does not have
        andl    $-16, %esp
        subl    $16, %esp               // for the argument
        movl    %edx, (%esp)
        call    *%eax
        leave
        .cfi_def_cfa %esp, 4
        .cfi_restore %ebp
        ret
        .cfi_endproc
        .size   greenlet_context_call, .-greenlet_context_call

// Indirect branch tracking: yes (endbr32 above). Shadow stacks: no, the switch would leave the
// shadow stack behind; without the mark the linker turns them off for the whole object.
        .section .note.gnu.property, "a", @note
        .p2align 2
        .long   4                       // name size
        .long   12                      // descriptor size
        .long   5                       // NT_GNU_PROPERTY_TYPE_0
        .asciz  "GNU"
        .long   0xc0000002              // GNU_PROPERTY_X86_FEATURE_1_AND
        .long   4
        .long   1                       // GNU_PROPERTY_X86_FEATURE_1_IBT

        .section .note.GNU-stack, "", @progbits
