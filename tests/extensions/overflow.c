/* For test_overflow.py: C functions that recurse by themselves, and a watch over the memory beside
 * a stack: were pages there written while a greenlet went as deep as it can?
 *
 * watch(low, high, own_low, own_high, guard) remembers all pages of [low, high) but those of
 * [own_low, own_high). changed() counts those that differ since, in place or in what they hold. A
 * fault writes the count to stderr, and whether the fault was in the `guard` bytes from own_low on;
 * then the handler before this one goes on. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096 };
static const uint64_t kPresent = (uint64_t)1 << 63; /* in a word of /proc/self/pagemap */

static struct {
  uintptr_t low, high, own_low, own_high;
  size_t guard;
  uint64_t* sums; /* of each page; zero if it is not there, or holds zeros */
  int pagemap;
  struct sigaction previous;
} watched = {.pagemap = -1};

static uint64_t sum_of(uintptr_t page) {
  uint64_t entry = 0;
  const off_t offset = (off_t)(page / kPage * sizeof entry);
  if (pread(watched.pagemap, &entry, sizeof entry, offset) != sizeof entry || !(entry & kPresent)) {
    return 0;
  }
  const uint64_t* const words = (const uint64_t*)page;
  uint64_t sum = 1, any = 0;
  for (size_t i = 0; i < kPage / sizeof *words; ++i) {
    sum = (sum ^ words[i]) * 0x100000001b3;
    any |= words[i];
  }
  /* The collector reads stacks that wait: what was not there is then a page of zeros. */
  return any != 0 ? sum | 1 : 0;
}

static int is_own(uintptr_t page) { return watched.own_low <= page && page < watched.own_high; }

/* Also in a signal handler. Pages that the kernel got back have not been written. */
static long count_changed(void) {
  long changed = 0;
  for (uintptr_t page = watched.low; page < watched.high; page += kPage) {
    const uint64_t now = is_own(page) ? 0 : sum_of(page);
    changed += now != 0 && now != watched.sums[(page - watched.low) / kPage];
  }
  return changed;
}

static void on_fault(int number, siginfo_t* info, void* context) {
  char line[128];
  const uintptr_t address = (uintptr_t)info->si_addr;
  const int in_guard = watched.own_low <= address && address < watched.own_low + watched.guard;
  (void)context;
  const int length =
      snprintf(line, sizeof line, "fault %s the guard, %ld pages beside it changed\n",
               in_guard ? "in" : "outside", count_changed());
  (void)!write(2, line, (size_t)length);
  sigaction(number, &watched.previous, NULL); /* the instruction runs again, and faults again */
}

static PyObject* watch(PyObject* Py_UNUSED(module), PyObject* args) {
  unsigned long long low, high, own_low, own_high;
  Py_ssize_t guard;
  if (!PyArg_ParseTuple(args, "KKKKn", &low, &high, &own_low, &own_high, &guard)) {
    return NULL;
  }
  watched.low = (uintptr_t)low;
  watched.high = (uintptr_t)high;
  watched.own_low = (uintptr_t)own_low;
  watched.own_high = (uintptr_t)own_high;
  watched.guard = (size_t)guard;
  const size_t pages = (size_t)(high - low) / kPage;
  watched.sums = (uint64_t*)mmap(NULL, pages * sizeof *watched.sums, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (watched.pagemap < 0) {
    watched.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    if (sigaction(SIGSEGV, &action, &watched.previous) != 0) {
      return PyErr_SetFromErrno(PyExc_OSError);
    }
  }
  if (watched.sums == MAP_FAILED || watched.pagemap < 0) {
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  long present = 0;
  for (size_t i = 0; i < pages; ++i) {
    const uintptr_t page = watched.low + i * kPage;
    watched.sums[i] = is_own(page) ? 0 : sum_of(page);
    present += watched.sums[i] != 0;
  }
  return PyLong_FromLong(present);
}

static PyObject* changed(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return PyLong_FromLong(count_changed());
}

/* An address in the stack that runs. */
static PyObject* here(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return PyLong_FromVoidPtr(__builtin_frame_address(0));
}

/* hold(number, function): calls the function while 2 KiB of stack hold the number. */
static PyObject* hold(PyObject* Py_UNUSED(module), PyObject* args) {
  volatile long held[256];
  long number;
  PyObject* function;
  if (!PyArg_ParseTuple(args, "lO", &number, &function)) {
    return NULL;
  }
  for (int i = 0; i < 256; ++i) {
    held[i] = number + i;
  }
  PyObject* const got = PyObject_CallFunctionObjArgs(function, NULL);
  for (int i = 0; i < 256; ++i) {
    if (held[i] != number + i) {
      Py_FatalError("a suspended stack was written");
    }
  }
  return got;
}

/* Recursion that no check of the interpreter sees, by frames of some sizes. */
#define DESCEND(name, bytes)                                    \
  static int name(int level) {                                  \
    volatile char frame[bytes];                                 \
    frame[level % (bytes)] = (char)level;                       \
    return level < 0 ? 0 : name(level + 1) + frame[level % 16]; \
  }
DESCEND(descend_16, 16)
DESCEND(descend_1024, 1024)
DESCEND(descend_15000, 15000) /* the largest ones that cannot step over a guard */

static PyObject* descend(PyObject* Py_UNUSED(module), PyObject* bytes) {
  const long size = PyLong_AsLong(bytes);
  return PyLong_FromLong(size == 16     ? descend_16(0)
                         : size == 1024 ? descend_1024(0)
                                        : descend_15000(0));
}

/* Recursion that asks the interpreter at each level, as an extension should. */
static int ask(int level) {
  volatile char frame[512];
  frame[level % 512] = (char)level;
  if (Py_EnterRecursiveCall(" in an extension")) {
    return -1;
  }
  const int got = ask(level + 1) + frame[level % 16] * 0;
  Py_LeaveRecursiveCall();
  return got;
}

static PyObject* ask_and_descend(PyObject* Py_UNUSED(module), PyObject* Py_UNUSED(args)) {
  return ask(0) < 0 ? NULL : PyLong_FromLong(0);
}

/* Recursion through Python: each level calls the function, which calls this again. */
static PyObject* call(PyObject* Py_UNUSED(module), PyObject* function) {
  return PyObject_CallFunctionObjArgs(function, NULL);
}

static PyMethodDef methods[] = {
    {"watch", watch, METH_VARARGS, NULL}, {"changed", changed, METH_NOARGS, NULL},
    {"here", here, METH_NOARGS, NULL},    {"hold", hold, METH_VARARGS, NULL},
    {"descend", descend, METH_O, NULL},   {"ask_and_descend", ask_and_descend, METH_NOARGS, NULL},
    {"call", call, METH_O, NULL},         {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "overflow", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_overflow(void) { return PyModuleDef_Init(&definition); }
