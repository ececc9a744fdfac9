// The register swap for x86-64, System V ABI, ELF and Mach-O. What lies here: leaving one stack and
// entering another, and the frame a new context starts from. What does not: the C++ exception state
// and the sanitizers' notes (context.h).
//
// The frame of a suspended context, which lies at its stack pointer and above:
//
//   sp + | 0x00  | 0x04   | 0x08 | 0x10 | 0x18 | 0x20 | 0x28 | 0x30 | 0x38           | 0x40
//        | MXCSR | x87 CW | r12  | r13  | r14  | r15  | rbx  | rbp  | return address | <- sp after
//
// Both sides of a switch have this frame, so one set of unwind information is right on either side
// of the instruction that changes rsp.
//
// Nearly always the two sides of a switch have called it from the same call site. Then `ret` goes
// where the processor's return stack predicts, and later returns stay paired with their calls. If
// the call sites differ, that prediction is always wrong, so an indirect jump is used, which the
// processor predicts from history.

#include "assembly.inc"

        .text

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       rax                     rdi             rsi          rdx
        .p2align 6
        function greenlet_context_switch
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)

        // Loading either control word stalls the pipeline, comparing does not. The low six bits of
        // MXCSR are sticky exception flags: not preserved by calls, hence no reason to reload.
        movl    (%rsp), %eax
        movzwl  4(%rsp), %ecx
        xorl    (%rsi), %eax
        xorw    4(%rsi), %cx
        andl    $~0x3f, %eax

        movq    0x38(%rsp), %r8
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp

        orl     %ecx, %eax
        jne     LOCAL(reload)
LOCAL(restore):
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        movq    %rdx, %rax
        cmpq    (%rsp), %r8
        jne     LOCAL(other_site)
        ret
LOCAL(other_site):
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rcx
        notrack jmp *%rcx               // not the start of a function, so it has no endbr64

        // This lies behind the `ret` in the file, but runs in the state of `restore`: the frame is
        // complete.
        .cfi_adjust_cfa_offset 64
        .cfi_offset %rip, -8
        .cfi_rel_offset %rbp, 48
        .cfi_rel_offset %rbx, 40
        .cfi_rel_offset %r15, 32
        .cfi_rel_offset %r14, 24
        .cfi_rel_offset %r13, 16
        .cfi_rel_offset %r12, 8
LOCAL(reload):
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        jmp     LOCAL(restore)
        .cfi_endproc
        end_function greenlet_context_switch

// void* greenlet_context_make(void* top, void (*entry)(void*))
//       rax                   rdi        rsi
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in rbx. rbp is zero: a walker of frame pointers
// stops there.
        .p2align 4
        function greenlet_context_make
        .cfi_startproc
        endbr64
        leaq    -0x40(%rdi), %rax
        stmxcsr (%rax)
        fnstcw  0x04(%rax)
        xorl    %ecx, %ecx
        movq    %rcx, 0x08(%rax)
        movq    %rcx, 0x10(%rax)
        movq    %rcx, 0x18(%rax)
        movq    %rcx, 0x20(%rax)
        movq    %rsi, 0x28(%rax)
        movq    %rcx, 0x30(%rax)
        leaq    LOCAL(begin)(%rip), %rcx
        movq    %rcx, 0x38(%rax)
        ret
        .cfi_endproc
        end_function greenlet_context_make

// The outermost frame of every context: calls the entry with the first message. Its return address
// is undefined, which tells every unwinder (debuggers, C++ exceptions, the forced unwinding of
// pthread_exit) that the stack ends here.
        .p2align 4
        function greenlet_context_begin
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_undefined %rip
        nop                             // unwinders look up one byte before a return address
LOCAL(begin):
        endbr64
        movq    %rax, %rdi
        call    *%rbx
        ud2                             // an entry never returns
        .cfi_endproc
        end_function greenlet_context_begin

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       rax                   rdi          rsi                       rdx
// Calls function(argument) on another stack, under `below`, and returns to this one. A stack walker
// finds the caller's frame by rbp. It is marked as the frame of a signal handler, because only for
// such a frame gdb accepts that the caller is on another stack, which may lie lower.
        .p2align 4
        function greenlet_context_call
        .cfi_startproc
        .cfi_signal_frame
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp
        leaq    -0x80(%rdi), %rsp       // a leaf function's red zone
        andq    $-16, %rsp
        movq    %rdx, %rdi
        call    *%rsi
        leave
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        ret
        .cfi_endproc
        end_function greenlet_context_call

#if !defined(__APPLE__)
// Indirect branch tracking: yes (endbr64 above). Shadow stacks: no, the switch would leave the
// shadow stack behind; without the mark the linker turns them off for the whole object.
        .section .note.gnu.property, "a", @note
        .p2align 3
        .long   4                       // name size
        .long   16                      // descriptor size
        .long   5                       // NT_GNU_PROPERTY_TYPE_0
        .asciz  "GNU"
        .long   0xc0000002              // GNU_PROPERTY_X86_FEATURE_1_AND
        .long   4
        .long   1                       // GNU_PROPERTY_X86_FEATURE_1_IBT
        .long   0                       // padding

        .section .note.GNU-stack, "", @progbits
#endif
