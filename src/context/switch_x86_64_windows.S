// The register swap for x86-64 Windows (Microsoft's ABI, PE/COFF). What lies here: leaving one stack
// and entering another, and the frame a new context starts from. What does not: the C++ exception
// state (context.h), and how stacks get their memory (../platform/memory_windows.cpp).
//
// The frame of a suspended context, which lies at its stack pointer and above:
//
//   sp + | 0x00 ... 0x90  | 0xa0  | 0xa4   | 0xa8      | 0xb0       | 0xb8              | 0xc0
//        | xmm6 ... xmm15 | MXCSR | x87 CW | StackBase | StackLimit | DeallocationStack | guarantee
//
//   sp + | 0xc8          | 0xd8 | 0xe0 | 0xe8 | 0xf0 | 0xf8 | 0x100 | 0x108 | 0x110 | 0x118 | 0x120
//        | ExceptionList | r15  | r14  | r13  | r12  | rsi  | rdi   | rbx   | rbp   | ret.  | <- sp
//
// (ret.: the return address; sp: the stack pointer after the switch.)
//
// Windows keeps the bounds of the stack that runs in the thread's block (TEB), at gs. The kernel
// lets a stack grow only between them, exceptions are dispatched only to frames between them, and
// code with large frames compares its stack pointer with StackLimit. So a switch changes them:
//
//   gs:0x0000  ExceptionList         Windows does not use it on x86-64. Wine does, for its own handlers
//   gs:0x0008  StackBase             the end of the stack
//   gs:0x0010  StackLimit            the lowest page in use; the kernel lowers it as the stack grows
//   gs:0x1478  DeallocationStack     the lowest address; the page there is never used
//   gs:0x1748  GuaranteedStackBytes  SetThreadStackGuarantee(): what an overflow leaves for handlers
//
// It does not change FiberData: fibers belong to the thread.
//
// Both sides of a switch have the same frame, so one set of unwind information is right on either
// side of the instruction that changes rsp. Windows unwinds epilogues by their instructions, which
// must be `add`, `pop` and `ret` for that.
//
// Shadow stacks (CET): the switch leaves the shadow stack behind, as the one for Linux does. A
// module that is not marked with /CETCOMPAT, as ours is not, has that tolerated by Windows, unless
// the process asks for the strict mode.

        .set    kMxcsr, 0xa0
        .set    kControlWord, 0xa4
        .set    kStackBase, 0xa8
        .set    kStackLimit, 0xb0
        .set    kDeallocationStack, 0xb8
        .set    kGuarantee, 0xc0
        .set    kExceptionList, 0xc8
        .set    kAllocated, 0xd8        // what the frame has below the pushed registers
        .set    kFrame, 0x120
        .set    kTebExceptionList, 0x00
        .set    kTebStackBase, 0x08
        .set    kTebStackLimit, 0x10
        .set    kTebDeallocationStack, 0x1478
        .set    kTebGuarantee, 0x1748
        .set    kLimitBelow, 0x10       // kStackLimitBelow in ../platform/memory_windows.h

        .text

// void* greenlet_context_leave(void** from_sp, void* to_sp, void* message)
//       rax                    rcx             rdx          r8
// Switches for the last time. The stack is a greenlet's own, and may get another context. So its
// limit is put where that context finds it.
        .globl  greenlet_context_leave
        .def    greenlet_context_leave; .scl 2; .type 32; .endef
        .p2align 4
greenlet_context_leave:
        movq    %gs:kTebStackBase, %rax
        movq    %gs:kTebStackLimit, %r9
        movq    %r9, -kLimitBelow(%rax)
        jmp     greenlet_context_switch

// void* greenlet_context_switch(void** from_sp, void* to_sp, void* message)
//       rax                     rcx             rdx          r8
        .globl  greenlet_context_switch
        .def    greenlet_context_switch; .scl 2; .type 32; .endef
        .seh_proc greenlet_context_switch
        .p2align 6
greenlet_context_switch:
        pushq   %rbp
        .seh_pushreg %rbp
        pushq   %rbx
        .seh_pushreg %rbx
        pushq   %rdi
        .seh_pushreg %rdi
        pushq   %rsi
        .seh_pushreg %rsi
        pushq   %r12
        .seh_pushreg %r12
        pushq   %r13
        .seh_pushreg %r13
        pushq   %r14
        .seh_pushreg %r14
        pushq   %r15
        .seh_pushreg %r15
        subq    $kAllocated, %rsp
        .seh_stackalloc kAllocated
        movaps  %xmm6, 0x00(%rsp)
        .seh_savexmm %xmm6, 0x00
        movaps  %xmm7, 0x10(%rsp)
        .seh_savexmm %xmm7, 0x10
        movaps  %xmm8, 0x20(%rsp)
        .seh_savexmm %xmm8, 0x20
        movaps  %xmm9, 0x30(%rsp)
        .seh_savexmm %xmm9, 0x30
        movaps  %xmm10, 0x40(%rsp)
        .seh_savexmm %xmm10, 0x40
        movaps  %xmm11, 0x50(%rsp)
        .seh_savexmm %xmm11, 0x50
        movaps  %xmm12, 0x60(%rsp)
        .seh_savexmm %xmm12, 0x60
        movaps  %xmm13, 0x70(%rsp)
        .seh_savexmm %xmm13, 0x70
        movaps  %xmm14, 0x80(%rsp)
        .seh_savexmm %xmm14, 0x80
        movaps  %xmm15, 0x90(%rsp)
        .seh_savexmm %xmm15, 0x90
        .seh_endprologue
        stmxcsr kMxcsr(%rsp)
        fnstcw  kControlWord(%rsp)

        movq    %gs:kTebStackBase, %rax
        movq    %gs:kTebStackLimit, %r9
        movq    %gs:kTebDeallocationStack, %r10
        movl    %gs:kTebGuarantee, %r11d
        movq    %rax, kStackBase(%rsp)
        movq    %r9, kStackLimit(%rsp)
        movq    %r10, kDeallocationStack(%rsp)
        movl    %r11d, kGuarantee(%rsp)
        movq    %gs:kTebExceptionList, %rax
        movq    %rax, kExceptionList(%rsp)

        // Loading either control word stalls the pipeline, comparing does not. The low six bits of
        // MXCSR are sticky exception flags: not preserved by calls, hence no reason to reload.
        movl    kMxcsr(%rsp), %eax
        movzwl  kControlWord(%rsp), %r9d
        xorl    kMxcsr(%rdx), %eax
        xorw    kControlWord(%rdx), %r9w
        andl    $~0x3f, %eax
        orl     %eax, %r9d

        movq    kStackBase(%rdx), %rax
        movq    %rax, %gs:kTebStackBase
        movq    kStackLimit(%rdx), %rax
        movq    %rax, %gs:kTebStackLimit
        movq    kDeallocationStack(%rdx), %rax
        movq    %rax, %gs:kTebDeallocationStack
        movl    kGuarantee(%rdx), %eax
        movl    %eax, %gs:kTebGuarantee
        movq    kExceptionList(%rdx), %rax
        movq    %rax, %gs:kTebExceptionList

        movq    %rsp, (%rcx)
        movq    %rdx, %rsp

        testl   %r9d, %r9d
        jne     .Lreload
.Lrestore:
        movaps  0x00(%rsp), %xmm6
        movaps  0x10(%rsp), %xmm7
        movaps  0x20(%rsp), %xmm8
        movaps  0x30(%rsp), %xmm9
        movaps  0x40(%rsp), %xmm10
        movaps  0x50(%rsp), %xmm11
        movaps  0x60(%rsp), %xmm12
        movaps  0x70(%rsp), %xmm13
        movaps  0x80(%rsp), %xmm14
        movaps  0x90(%rsp), %xmm15
        movq    %r8, %rax
        addq    $kAllocated, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rsi
        popq    %rdi
        popq    %rbx
        popq    %rbp
        ret
.Lreload:
        ldmxcsr kMxcsr(%rsp)
        fldcw   kControlWord(%rsp)
        jmp     .Lrestore
        .seh_endproc

// void* greenlet_context_make(void* top, void (*entry)(void*), void* low)
//       rax                   rcx        rdx                   r8
// Writes the first frame below `top` and returns its stack pointer. The frame's return address is
// inside greenlet_context_begin, which finds the entry in rbx. Below `top` lie, from above: the word
// with the limit of the stack, the null that ends a walk of the stack, and the space that the entry,
// as every function, may use above its return address.
        .set    kBegin, 0x50            // from the top to the stack pointer at .Lbegin
        .globl  greenlet_context_make
        .def    greenlet_context_make; .scl 2; .type 32; .endef
        .p2align 4
greenlet_context_make:
        leaq    -(kBegin + kFrame)(%rcx), %rax
        stmxcsr kMxcsr(%rax)
        fnstcw  kControlWord(%rax)
        movq    %rcx, kStackBase(%rax)
        movq    -kLimitBelow(%rcx), %r9
        movq    %r9, kStackLimit(%rax)
        movq    %r8, kDeallocationStack(%rax)
        xorl    %r9d, %r9d
        movl    %r9d, kGuarantee(%rax)
        movq    $-1, kExceptionList(%rax) // an empty list
        movq    %r9, 0x110(%rax)        // rbp
        movq    %rdx, 0x108(%rax)       // rbx
        leaq    .Lbegin(%rip), %r10
        movq    %r10, 0x118(%rax)
        movq    %r9, 0x28 + kFrame(%rax) // the return address of greenlet_context_begin
        ret

// The outermost frame of every context: calls the entry with the first message. Its return address
// is null, where stack walks end. It handles exceptions that no other frame does
// (../platform/fault_windows.cpp).
        .globl  greenlet_context_begin
        .def    greenlet_context_begin; .scl 2; .type 32; .endef
        .seh_proc greenlet_context_begin
        .seh_handler greenlet_unhandled_exception, @except
        .p2align 4
greenlet_context_begin:
        subq    $0x28, %rsp
        .seh_stackalloc 0x28
        .seh_endprologue
.Lbegin:
        movq    %rax, %rcx
        call    *%rbx
        ud2                             // an entry never returns
        .seh_endproc

// void* greenlet_context_call(void* below, void* (*function)(void*), void* argument)
//       rax                   rcx          rdx                       r8
// Calls function(argument) on another stack, under `below`, and returns to this one. `below` is the
// frame of the context that is suspended there, and has the bounds of that stack.
        .globl  greenlet_context_call
        .def    greenlet_context_call; .scl 2; .type 32; .endef
        .seh_proc greenlet_context_call
        .p2align 4
greenlet_context_call:
        pushq   %rbp
        .seh_pushreg %rbp
        pushq   %rbx
        .seh_pushreg %rbx
        subq    $0x28, %rsp
        .seh_stackalloc 0x28
        movq    %rsp, %rbp
        .seh_setframe %rbp, 0
        .seh_endprologue
        movq    %rcx, %rbx
        movq    %gs:kTebStackBase, %rax
        movq    %rax, 0x00(%rbp)
        movq    %gs:kTebStackLimit, %rax
        movq    %rax, 0x08(%rbp)
        movq    %gs:kTebDeallocationStack, %rax
        movq    %rax, 0x10(%rbp)
        movl    %gs:kTebGuarantee, %eax
        movl    %eax, 0x18(%rbp)
        movq    %gs:kTebExceptionList, %rax
        movq    %rax, 0x20(%rbp)

        movq    kStackBase(%rbx), %rax
        movq    %rax, %gs:kTebStackBase
        movq    kStackLimit(%rbx), %rax
        movq    %rax, %gs:kTebStackLimit
        movq    kDeallocationStack(%rbx), %rax
        movq    %rax, %gs:kTebDeallocationStack
        movl    kGuarantee(%rbx), %eax
        movl    %eax, %gs:kTebGuarantee
        movq    kExceptionList(%rbx), %rax
        movq    %rax, %gs:kTebExceptionList

        leaq    -0x20(%rbx), %rsp       // the space of the function; `below` is aligned
        movq    %r8, %rcx
        call    *%rdx
        movq    %rbp, %rsp

        movq    %gs:kTebStackLimit, %rdx
        movq    %rdx, kStackLimit(%rbx) // that stack may have grown
        movq    0x00(%rbp), %rdx
        movq    %rdx, %gs:kTebStackBase
        movq    0x08(%rbp), %rdx
        movq    %rdx, %gs:kTebStackLimit
        movq    0x10(%rbp), %rdx
        movq    %rdx, %gs:kTebDeallocationStack
        movl    0x18(%rbp), %edx
        movl    %edx, %gs:kTebGuarantee
        movq    0x20(%rbp), %rdx
        movq    %rdx, %gs:kTebExceptionList
        addq    $0x28, %rsp
        popq    %rbx
        popq    %rbp
        ret
        .seh_endproc
