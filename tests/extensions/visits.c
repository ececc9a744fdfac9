/* Counts how often CPython's collector would reach each object that it tracks, beside the object's
 * reference count. look() does to the whole heap what a collection does first, with the collector's
 * own visit function, and puts everything back before any Python code runs.
 *
 * The function that subtracts references from counts (visit_decref of gc.c, gcmodule.c before 3.13,
 * and gc_free_threading.c) is static. CPython compares with its address to leave out references
 * that own no count (_PyGC_VisitStackRef(), 3.14+), so no other function sees the same references.
 * learn() takes it from a collection, which calls a witness's tp_traverse with it.
 *
 * Only one thread may run. The layouts used here are checked by learn(), or public.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

/* More than any object has visits; debug builds assert that the rest is positive. */
#define START ((Py_ssize_t)1 << (sizeof(Py_ssize_t) > 4 ? 40 : 28))

static visitproc visit_decref;

/* --- the collector's scratch number of an object ------------------------------------------- */

#ifdef Py_GIL_DISABLED

/* gc_free_threading.c counts in ob_tid, of objects that have the bit UNREACHABLE. */
enum { TRACKED = 1 << 0, UNREACHABLE = 1 << 2, FROZEN = 1 << 3, ALIVE = 1 << 5, DEFERRED = 1 << 6 };
static const Py_ssize_t REF_DEFERRED = PY_SSIZE_T_MAX / 8; /* _Py_REF_DEFERRED */

typedef uintptr_t Saved;

static Saved begin(PyObject* op) {
  const Saved saved = op->ob_tid;
  op->ob_gc_bits |= UNREACHABLE;
  op->ob_tid = (uintptr_t)START;
  return saved;
}

static Py_ssize_t end(PyObject* op, Saved saved) {
  const Py_ssize_t visits = START - (Py_ssize_t)op->ob_tid;
  op->ob_gc_bits &= (uint8_t)~UNREACHABLE;
  op->ob_tid = saved;
  return visits;
}

static int counts(PyObject* op) { return (op->ob_gc_bits & UNREACHABLE) != 0; }
static void count(PyObject* op) { --op->ob_tid; }
static int is_deferred(PyObject* op) { return (op->ob_gc_bits & DEFERRED) != 0; }
static int is_usable(PyObject* op) {
  return (op->ob_gc_bits & TRACKED) != 0 && (op->ob_gc_bits & (UNREACHABLE | FROZEN | ALIVE)) == 0;
}
static Py_ssize_t references(PyObject* op) {
  return Py_REFCNT(op) - (is_deferred(op) ? REF_DEFERRED : 0);
}
static void* argument_of(PyObject* op) {
  (void)op;
  return NULL;
}

#else

/* gc.c counts in the upper bits of _gc_prev, of objects that have the bit COLLECTING. */
enum { FINALIZED = 1, COLLECTING = 2, SHIFT = 2 };

typedef uintptr_t Saved;

static uintptr_t* prev_of(PyObject* op) { return (uintptr_t*)op - 1; } /* PyGC_Head.{next, prev} */

static Saved begin(PyObject* op) {
  const Saved saved = *prev_of(op);
  *prev_of(op) = (uintptr_t)START << SHIFT | COLLECTING | (saved & FINALIZED);
  return saved;
}

/* A traversal may set or clear FINALIZED; ours do so with generators and greenlets. */
static Py_ssize_t end(PyObject* op, Saved saved) {
  const uintptr_t now = *prev_of(op);
  *prev_of(op) = (saved & ~(uintptr_t)FINALIZED) | (now & FINALIZED);
  return START - (Py_ssize_t)(now >> SHIFT);
}

static int counts(PyObject* op) { return PyObject_IS_GC(op) && (*prev_of(op) & COLLECTING) != 0; }
static void count(PyObject* op) { *prev_of(op) -= (uintptr_t)1 << SHIFT; }
static int is_deferred(PyObject* op) {
  (void)op;
  return 0;
}
static int is_usable(PyObject* op) {
  return PyObject_GC_IsTracked(op) && (*prev_of(op) & COLLECTING) == 0;
}
static Py_ssize_t references(PyObject* op) { return Py_REFCNT(op); }
static void* argument_of(PyObject* op) { return op; }

#endif

static int is_immortal(PyObject* op) {
#if PY_VERSION_HEX >= 0x030e0000
  return PyUnstable_IsImmortal(op);
#elif PY_VERSION_HEX >= 0x030c0000
  return _Py_IsImmortal(op);
#else
  (void)op;
  return 0;
#endif
}

/* As the passes of a collection that look for what is alive: with an argument, and no visit_decref.
 */
static int visit_alive(PyObject* op, void* dying) {
  if (Py_REFCNT(op) == 0) {
    *(const char**)dying = Py_TYPE(op)->tp_name;
  }
  if (counts(op)) {
    count(op);
  }
  return 0;
}

/* --- the witness ----------------------------------------------------------------------------- */

static int witness_traverse(PyObject* self, visitproc visit, void* arg) {
  if (arg == argument_of(self) && visit_decref == NULL) {
    visit_decref = visit;
  }
  return 0;
}

static void witness_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  PyObject_GC_Del(self);
}

static PyTypeObject witness_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "visits.Witness",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = witness_traverse,
    .tp_dealloc = witness_dealloc,
};

static PyObject* call_gc(const char* name) {
  PyObject* gc = PyImport_ImportModule("gc");
  if (gc == NULL) return NULL;
  PyObject* result = PyObject_CallMethod(gc, name, NULL);
  Py_DECREF(gc);
  return result;
}

/* learn(): takes visit_decref from a collection, and checks that it counts where we look. */
static PyObject* learn(PyObject* module, PyObject* unused) {
  (void)module;
  (void)unused;
  if (PyType_Ready(&witness_type) < 0) return NULL;
  PyObject* witness = witness_type.tp_alloc(&witness_type, 0);
  if (witness == NULL) return NULL;
  PyObject* collected = call_gc("collect");
  if (collected == NULL) {
    Py_DECREF(witness);
    return NULL;
  }
  Py_DECREF(collected);
  int works = 0;
  if (visit_decref != NULL && is_usable(witness)) {
    const Saved saved = begin(witness);
    visit_decref(witness, argument_of(witness));
    const char* dying = NULL;
    visit_alive(witness, &dying);
    works = end(witness, saved) == 2 && is_usable(witness);
  }
  Py_DECREF(witness);
  if (!works) {
    PyErr_SetString(PyExc_RuntimeError, "this interpreter's collector does not count as expected");
    return NULL;
  }
  Py_RETURN_NONE;
}

/* --- objects that are wrong on purpose, for the tests of this ----------------------------------
 */

/* Owns one reference to `held`, and visits it so many times. */
typedef struct {
  PyObject ob_base;
  PyObject* held;
  int visits;
} Liar;

static int liar_traverse(PyObject* self, visitproc visit, void* arg) {
  for (int i = 0; i < ((Liar*)self)->visits; ++i) {
    Py_VISIT(((Liar*)self)->held);
  }
  return 0;
}

static void liar_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_CLEAR(((Liar*)self)->held);
  PyObject_GC_Del(self);
}

static PyTypeObject liar_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "visits.Liar",
    .tp_basicsize = sizeof(Liar),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = liar_traverse,
    .tp_dealloc = liar_dealloc,
};

/* lie(held, visits): an object that owns one reference to `held` and visits it so often. */
static PyObject* lie(PyObject* module, PyObject* args) {
  (void)module;
  PyObject* held;
  int visits;
  if (!PyArg_ParseTuple(args, "Oi", &held, &visits) || PyType_Ready(&liar_type) < 0) return NULL;
  Liar* const liar = (Liar*)liar_type.tp_alloc(&liar_type, 0);
  if (liar == NULL) return NULL;
  Py_INCREF(held);
  liar->held = held;
  liar->visits = visits;
  return (PyObject*)liar;
}

/* --- the look -------------------------------------------------------------------------------- */

typedef struct {
  Saved saved;
  Py_ssize_t counted, alive;
} Entry;

static void pass(PyObject* const* objects, Py_ssize_t size, Entry* entries, int counting,
                 const char** dying) {
  for (Py_ssize_t i = 0; i < size; ++i) {
    entries[i].saved = begin(objects[i]);
  }
  for (Py_ssize_t i = 0; i < size; ++i) {
    const traverseproc traverse = Py_TYPE(objects[i])->tp_traverse;
    if (counting) {
      traverse(objects[i], visit_decref, argument_of(objects[i]));
    } else {
      traverse(objects[i], visit_alive, dying);
    }
  }
  for (Py_ssize_t i = 0; i < size; ++i) {
    *(counting ? &entries[i].counted : &entries[i].alive) = end(objects[i], entries[i].saved);
  }
}

static int add(PyObject* list, const char* what, PyObject* op, const Entry* entry) {
  PyObject* const item =
      Py_BuildValue("sOnnn", what, op, references(op) - 1, entry->counted, entry->alive);
  const int result = item == NULL ? -1 : PyList_Append(list, item);
  Py_XDECREF(item);
  return result;
}

/* look(probe, collect): compares visits with references for all tracked objects, after a collection
 * if `collect` is true. (Only then are the counts of classes, code objects and functions right on
 * free-threaded builds, where each thread has a share of them; and only then are they compared.)
 *
 * Returns (how many objects were compared, how many visits were counted, [what is wrong], how many
 * instances of `probe` there are, how many of their references no visit accounts for, the instances
 * that have such references, how many visits show references that are not counted, the class of an
 * object that is visited while it is deallocated or None). A wrong one is (text, object,
 * references, visits that count, visits that look for what is alive). */
static PyObject* look(PyObject* module, PyObject* args) {
  (void)module;
  PyObject* probe;
  int collect;
  if (!PyArg_ParseTuple(args, "O!p", &PyType_Type, &probe, &collect)) return NULL;
  if (visit_decref == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "learn() comes first");
    return NULL;
  }
  PyObject* const wrong = PyList_New(0);
  PyObject* const hidden = PyList_New(0);
  if (wrong == NULL || hidden == NULL) return NULL;
  if (collect) {
    PyObject* const collected = call_gc("collect");
    if (collected == NULL) return NULL;
    Py_DECREF(collected);
  }
  PyObject* const all = call_gc("get_objects");
  if (all == NULL) return NULL;
  const Py_ssize_t listed = PyList_GET_SIZE(all);
  PyObject** const objects = calloc((size_t)listed + 1, sizeof *objects);
  Entry* const entries = calloc((size_t)listed + 1, sizeof *entries);
  if (objects == NULL || entries == NULL) return PyErr_NoMemory();
  Py_ssize_t size = 0;
  for (Py_ssize_t i = 0; i < listed; ++i) {
    PyObject* const op = PyList_GET_ITEM(all, i);
    if (is_usable(op) && op != wrong && op != hidden && op != all) {
      objects[size++] = op;
    }
  }
  const char* dying = NULL;
  pass(objects, size, entries, 1, &dying);
  pass(objects, size, entries, 0, &dying);

  Py_ssize_t compared = 0, visits = 0, probes = 0, missing = 0, uncounted = 0;
  int failed = 0;
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* const op = objects[i];
    const Entry* const entry = &entries[i];
    visits += entry->counted;
    uncounted += entry->alive > entry->counted ? entry->alive - entry->counted : 0;
    if (is_immortal(op)) continue;
    if (entry->alive < entry->counted) {
      failed |= add(wrong, "counted, but not shown to what looks for the living", op, entry);
    }
    if (is_deferred(op) && !collect) continue;
    ++compared;
    const Py_ssize_t owned = references(op) - 1; /* `all` has the one */
    if (entry->counted > owned) {
      failed |= add(wrong, "too many visits", op, entry);
    }
    if (PyType_IsSubtype(Py_TYPE(op), (PyTypeObject*)probe)) {
      ++probes;
      if (owned > entry->counted) {
        missing += owned - entry->counted;
        failed |= PyList_Append(hidden, op);
      }
    }
  }
  free(objects);
  free(entries);
  Py_DECREF(all);
  if (failed) {
    Py_DECREF(wrong);
    Py_DECREF(hidden);
    return NULL;
  }
  return Py_BuildValue("nnNnnNnz", compared, visits, wrong, probes, missing, hidden, uncounted,
                       dying);
}

static PyMethodDef methods[] = {{"learn", learn, METH_NOARGS, NULL},
                                {"lie", lie, METH_VARARGS, NULL},
                                {"look", look, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};
static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "visits", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_visits(void) { return PyModuleDef_Init(&definition); }
