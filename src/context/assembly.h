// What differs between ELF (Linux) and Mach-O (macOS), for the assembly that serves both.
//
//   function NAME       begins a function that only our own code calls
//   end_function NAME   ends it
//   LOCAL(NAME)         a label that the object file does not have. (Unwind information ends at labels
//                       that a Mach-O file has.)
#if defined(__APPLE__)

#define LOCAL(name) L##name

        .macro  function name
        .globl  _\name                  // C's names have an underscore there
        .private_extern _\name
_\name:
        .endm

        .macro  end_function name
        .endm

#else

#define LOCAL(name) .L##name

        .macro  function name
        .globl  \name
        .hidden \name
        .type   \name, %function
\name:
        .endm

        .macro  end_function name
        .size   \name, .-\name
        .endm

#endif
