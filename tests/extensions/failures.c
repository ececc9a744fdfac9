/* Memory that fails: the allocations of CPython, by allocators in front of its own, and those of
 * greenlet, by functions in place of the ones that its extension module imports from the C library.
 * greenlet maps stacks, guards them and gives memory back by system calls; these fail, too.
 *
 * Only a thread that is armed sees failures. Its allocations have numbers, from 0 at arm(). */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <execinfo.h>
#endif

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

static __thread int armed;
static long first_failing, end_of_failing; /* numbers of allocations that fail */
static long seen, failed;
static long blocks; /* that are allocated, less those that have been freed */

/* Where the first failure was. */
enum { DEPTH = 14 };
static void* where[DEPTH];
static int depth;

static int fails(void) {
  long number;
  if (!armed) {
    return 0;
  }
  number = __atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
  if (number < first_failing || number >= end_of_failing) {
    return 0;
  }
#ifdef __GLIBC__
  if (__atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED) == 0) {
    depth = backtrace(where, DEPTH);
  }
#else
  __atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED);
#endif
  return 1;
}

static void* counted(void* block) {
  if (block != NULL) {
    __atomic_fetch_add(&blocks, 1, __ATOMIC_RELAXED);
  }
  return block;
}

static void uncount(const void* block) {
  if (block != NULL) {
    __atomic_fetch_sub(&blocks, 1, __ATOMIC_RELAXED);
  }
}

/* --- CPython's allocators --------------------------------------------------------------------- */

static PyMemAllocatorEx inner[3]; /* the allocators of the three domains before ours */
static PyObjectArenaAllocator inner_arenas;

static void* failing_malloc(void* context, size_t size) {
  const PyMemAllocatorEx* const own = (const PyMemAllocatorEx*)context;
  return fails() ? NULL : counted(own->malloc(own->ctx, size));
}

static void* failing_calloc(void* context, size_t count, size_t size) {
  const PyMemAllocatorEx* const own = (const PyMemAllocatorEx*)context;
  return fails() ? NULL : counted(own->calloc(own->ctx, count, size));
}

static void* failing_realloc(void* context, void* block, size_t size) {
  const PyMemAllocatorEx* const own = (const PyMemAllocatorEx*)context;
  void* grown;
  if (fails()) {
    return NULL;
  }
  grown = own->realloc(own->ctx, block, size);
  return block == NULL ? counted(grown) : grown;
}

static void counting_free(void* context, void* block) {
  const PyMemAllocatorEx* const own = (const PyMemAllocatorEx*)context;
  uncount(block);
  own->free(own->ctx, block);
}

/* Arenas of objects, and the chunks of Python frames. */
static void* failing_arena(void* context, size_t size) {
  (void)context;
  return fails() ? NULL : counted(inner_arenas.alloc(inner_arenas.ctx, size));
}

static void free_arena(void* context, void* arena, size_t size) {
  (void)context;
  uncount(arena);
  inner_arenas.free(inner_arenas.ctx, arena, size);
}

static void install_allocators(void) {
  static const PyMemAllocatorDomain domains[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                 PYMEM_DOMAIN_OBJ};
  PyObjectArenaAllocator arenas = {NULL, failing_arena, free_arena};
  int index;
  for (index = 0; index < 3; ++index) {
    PyMemAllocatorEx outer = {&inner[index], failing_malloc, failing_calloc, failing_realloc,
                              counting_free};
    PyMem_GetAllocator(domains[index], &inner[index]);
    PyMem_SetAllocator(domains[index], &outer);
  }
  PyObject_GetArenaAllocator(&inner_arenas);
  PyObject_SetArenaAllocator(&arenas);
}

/* --- what greenlet imports -------------------------------------------------------------------- */

static void* own_malloc(size_t size) { return fails() ? NULL : counted(malloc(size)); }

static void* own_aligned_alloc(size_t alignment, size_t size) {
  return fails() ? NULL : counted(aligned_alloc(alignment, size));
}

static void* own_realloc(void* block, size_t size) {
  void* grown;
  if (fails()) {
    return NULL;
  }
  grown = realloc(block, size);
  return block == NULL ? counted(grown) : grown;
}

static void own_free(void* block) {
  uncount(block);
  free(block);
}

static int own_mincore(void* begin, size_t length, unsigned char* states) {
  if (fails()) {
    errno = EAGAIN;
    return -1;
  }
  return mincore(begin, length, states);
}

static long own_syscall(long number, long a, long b, long c, long d, long e, long f) {
  switch (number) {
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mremap:
    case SYS_mprotect:
    case SYS_madvise:
    case SYS_process_madvise:
      if (fails()) {
        errno = ENOMEM;
        return -1;
      }
      break;
    default:
      break;
  }
  return syscall(number, a, b, c, d, e, f);
}

struct replacement {
  const char* name;
  void* function;
};

static const struct replacement replacements[] = {
    {"malloc", __extension__(void*) own_malloc},
    {"aligned_alloc", __extension__(void*) own_aligned_alloc},
    {"realloc", __extension__(void*) own_realloc},
    {"free", __extension__(void*) own_free},
    {"mincore", __extension__(void*) own_mincore},
    {"syscall", __extension__(void*) own_syscall},
};

static int replace_word(ElfW(Addr) word, const char* name) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t index;
  for (index = 0; index < sizeof(replacements) / sizeof(*replacements); ++index) {
    if (strcmp(replacements[index].name, name) == 0) {
      /* The dynamic linker has made the page read-only. It may stay writable here. */
      if (mprotect((void*)(word / page * page), page, PROT_READ | PROT_WRITE) != 0) {
        return 0;
      }
      *(void**)word = replacements[index].function;
      return 1;
    }
  }
  return 0;
}

static int replace_in(const struct link_map* map) {
  const ElfW(Rela) * tables[2] = {NULL, NULL};
  size_t bytes[2] = {0, 0}, index;
  const ElfW(Sym)* symbols = NULL;
  const char* strings = NULL;
  const ElfW(Dyn) * entry;
  int table, replaced = 0;
  for (entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    /* glibc has added the base of the library; musl has not. */
    const ElfW(Addr) given = entry->d_un.d_ptr;
    const ElfW(Addr) address = given < map->l_addr ? map->l_addr + given : given;
    switch (entry->d_tag) {
      case DT_SYMTAB:
        symbols = (const ElfW(Sym)*)address;
        break;
      case DT_STRTAB:
        strings = (const char*)address;
        break;
      case DT_RELA:
        tables[0] = (const ElfW(Rela)*)address;
        break;
      case DT_RELASZ:
        bytes[0] = entry->d_un.d_val;
        break;
      case DT_JMPREL:
        tables[1] = (const ElfW(Rela)*)address;
        break;
      case DT_PLTRELSZ:
        bytes[1] = entry->d_un.d_val;
        break;
      default:
        break;
    }
  }
  for (table = 0; table < 2; ++table) {
    for (index = 0; tables[table] != NULL && index < bytes[table] / sizeof(ElfW(Rela)); ++index) {
      const size_t symbol = ELF64_R_SYM(tables[table][index].r_info);
      if (symbol != 0) {
        replaced += replace_word(map->l_addr + tables[table][index].r_offset,
                                 strings + symbols[symbol].st_name);
      }
    }
  }
  return replaced;
}

/* watch(path): let the imports of a loaded extension module fail; how many these are. */
static PyObject* watch(PyObject* Py_UNUSED(module), PyObject* path) {
  const char* const name = PyUnicode_AsUTF8(path);
  struct link_map* map;
  void* const library = name != NULL ? dlopen(name, RTLD_NOW | RTLD_NOLOAD) : NULL;
  if (library == NULL || dlinfo(library, RTLD_DI_LINKMAP, &map) != 0) {
    return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_OSError, "%U is not loaded", path);
  }
  return PyLong_FromLong(replace_in(map));
}

/* --- for Python ------------------------------------------------------------------------------- */

/* arm(first, end): from now on these allocations of the calling thread fail. */
static PyObject* arm(PyObject* Py_UNUSED(module), PyObject* args) {
  long from, to;
  if (!PyArg_ParseTuple(args, "ll", &from, &to)) {
    return NULL;
  }
  first_failing = from;
  end_of_failing = to;
  seen = failed = depth = 0;
  armed = 1;
  Py_RETURN_NONE;
}

static PyObject* disarm(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  armed = 0;
  Py_RETURN_NONE;
}

/* call(first, end, function, args, kwargs): call the function while these allocations fail. */
static PyObject* call(PyObject* Py_UNUSED(module), PyObject* args) {
  PyObject *function, *positional, *keywords, *got;
  long from, to;
  if (!PyArg_ParseTuple(args, "llOO!O!", &from, &to, &function, &PyTuple_Type, &positional,
                        &PyDict_Type, &keywords)) {
    return NULL;
  }
  if (PyDict_GET_SIZE(keywords) == 0) {
    keywords = NULL;
  }
  first_failing = from;
  end_of_failing = to;
  seen = failed = depth = 0;
  armed = 1;
  got = PyObject_Call(function, positional, keywords);
  armed = 0;
  return got;
}

/* counts(): allocations seen and failed since arm(), and blocks in use. */
static PyObject* counts(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return Py_BuildValue("lll", seen, failed, blocks);
}

/* The callers of the first allocation that failed: names, or library+offset. */
static PyObject* callers(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  PyObject* const list = PyList_New(0);
  int index;
  for (index = 2; list != NULL && index < depth; ++index) {
    Dl_info found;
    PyObject* text;
    memset(&found, 0, sizeof(found));
    dladdr((char*)where[index] - 1, &found);
    if (found.dli_sname != NULL) {
      text = PyUnicode_FromString(found.dli_sname);
    } else {
      const char* const file = found.dli_fname != NULL ? found.dli_fname : "?";
      const char* const slash = strrchr(file, '/');
      text = PyUnicode_FromFormat("%s+0x%zx", slash != NULL ? slash + 1 : file,
                                  (size_t)((char*)where[index] - (char*)found.dli_fbase));
    }
    if (text == NULL || PyList_Append(list, text) < 0) {
      return NULL;
    }
    Py_DECREF(text);
  }
  return list;
}

static void* thread_main(void* function) {
  const PyGILState_STATE state = PyGILState_Ensure();
  PyObject* const got = PyObject_CallNoArgs((PyObject*)function);
  if (got == NULL) {
    PyErr_WriteUnraisable((PyObject*)function);
  }
  Py_XDECREF(got);
  PyGILState_Release(state);
  armed = 0;
  return NULL;
}

/* in_thread(function): call it in a new thread. If it has armed that, the end of it fails, too. */
static PyObject* in_thread(PyObject* Py_UNUSED(module), PyObject* function) {
  pthread_t thread;
  int error;
  Py_BEGIN_ALLOW_THREADS;
  error = pthread_create(&thread, NULL, thread_main, function);
  error = error != 0 ? error : pthread_join(thread, NULL);
  Py_END_ALLOW_THREADS;
  errno = error;
  if (error != 0) {
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_O, NULL},         {"arm", arm, METH_VARARGS, NULL},
    {"disarm", disarm, METH_NOARGS, NULL},  {"call", call, METH_VARARGS, NULL},
    {"counts", counts, METH_NOARGS, NULL},  {"callers", callers, METH_NOARGS, NULL},
    {"in_thread", in_thread, METH_O, NULL}, {NULL, NULL, 0, NULL},
};

static int install(PyObject* Py_UNUSED(module)) {
#ifdef __GLIBC__
  depth = backtrace(where, DEPTH); /* the first call loads a library */
#endif
  install_allocators();
  return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, __extension__(void*) install},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "failures", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_failures(void) { return PyModuleDef_Init(&definition); }
