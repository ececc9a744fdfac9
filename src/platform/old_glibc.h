// The versions of functions that every glibc has. glibc moved these functions into libc in 2.32 and
// 2.34, under new versions. A wheel that is built with a newer glibc must run on older ones, and
// every glibc has the old versions.
//
// To be included where one of the functions is called. Such a file must be compiled without LTO,
// which may separate these directives from the code. An unused directive does nothing.
#pragma once

#if __has_include(<features.h>)
#include <features.h>
#endif

#ifdef __GLIBC__
#if defined(__x86_64__)
asm(".symver dlopen, dlopen@GLIBC_2.2.5");
asm(".symver dlsym, dlsym@GLIBC_2.2.5");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.2.5");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.2.5");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.2.5");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.2.5");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.2.5");
#elif defined(__aarch64__) || defined(__powerpc64__)
asm(".symver dlopen, dlopen@GLIBC_2.17");
asm(".symver dlsym, dlsym@GLIBC_2.17");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.17");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.17");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.17");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.17");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.17");
#elif defined(__riscv)
asm(".symver dlopen, dlopen@GLIBC_2.27");
asm(".symver dlsym, dlsym@GLIBC_2.27");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.27");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.27");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.27");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.27");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.27");
#elif defined(__s390x__)
asm(".symver dlopen, dlopen@GLIBC_2.2");
asm(".symver dlsym, dlsym@GLIBC_2.2");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.2");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.2");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.2");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.2.3");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.2");
#elif defined(__i386__)
asm(".symver dlopen, dlopen@GLIBC_2.1");
asm(".symver dlsym, dlsym@GLIBC_2.0");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.2");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.1");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.2");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.2.3");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.0");
#elif defined(__arm__)
asm(".symver dlopen, dlopen@GLIBC_2.4");
asm(".symver dlsym, dlsym@GLIBC_2.4");
asm(".symver pthread_attr_getstack, pthread_attr_getstack@GLIBC_2.4");
asm(".symver pthread_attr_setguardsize, pthread_attr_setguardsize@GLIBC_2.4");
asm(".symver pthread_attr_setstack, pthread_attr_setstack@GLIBC_2.4");
asm(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.4");
asm(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.4");
#endif  // the first glibc for LoongArch is 2.36
#endif
