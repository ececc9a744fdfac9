"""Programs that embed Python.

Python starts and ends several times in one process, or ends in odd places; and thread states are
handed from one thread of the program to another.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import greenlet
import pytest
from helpers import ADDRESS_SANITIZER, DEBUG_BUILD, TIME_SCALE, VERSION, Outcome

# Runs argv[2] in the way that argv[1] names, argv[3] times. Reports each end of Python.
HOST = r"""
#include <Python.h>
#include <pthread.h>
#include <semaphore.h>

static const char *script;
static int times;

static void run(void) {
  if (PyRun_SimpleString(script) != 0) {
    printf("failed\n");
    fflush(stdout);
    _exit(1);
  }
}

static void finalize(void) {
  printf("end %d\n", Py_FinalizeEx());
  fflush(stdout);
}

/* host.finalize(): ends Python from within it, and then the program. */
static PyObject *finalize_and_exit(PyObject *self, PyObject *unused) {
  finalize();
  exit(0);
}

/* host.leak(object): a reference that nobody drops. */
static PyObject *leak(PyObject *self, PyObject *object) {
  Py_INCREF(object);
  return Py_NewRef(Py_None);
}

/* host.use(kind, script): runs a script in another thread state of this OS thread. A "fresh" one is
   ended afterwards, a "kept" one is used again the next time and never ended, and so is that of
   an "interpreter" of its own. */
static PyThreadState *kept, *interpreter;
static PyObject *use(PyObject *self, PyObject *args) {
  const char *kind, *source;
  if (!PyArg_ParseTuple(args, "ss", &kind, &source)) return NULL;
  PyThreadState *mine = PyThreadState_Get(), *other = NULL;
  if (strcmp(kind, "interpreter") == 0) {
    if (interpreter == NULL) {
      interpreter = Py_NewInterpreter();
      PyThreadState_Swap(mine);
    }
    other = interpreter;
  } else {
    if (strcmp(kind, "kept") == 0) other = kept;
    if (other == NULL) other = PyThreadState_New(PyInterpreterState_Get());
    if (strcmp(kind, "kept") == 0) kept = other;
  }
  PyThreadState_Swap(other);
  int failed = PyRun_SimpleString(source);
  if (strcmp(kind, "fresh") == 0) PyThreadState_Clear(other);
  PyThreadState_Swap(mine);
  if (strcmp(kind, "fresh") == 0) PyThreadState_Delete(other);
  if (failed) PyErr_SetString(PyExc_RuntimeError, "the script failed");
  return failed ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {{"finalize", finalize_and_exit, METH_NOARGS, NULL},
                                {"leak", leak, METH_O, NULL},
                                {"use", use, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};
static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "host", .m_methods = methods, .m_slots = slots};
static PyObject *make_host(void) { return PyModuleDef_Init(&definition); }

static void *one_life(void *unused) {
  Py_Initialize();
  run();
  finalize();
  return NULL;
}

/* A thread that is there before Python and outlives it, and calls it once in each life. */
static sem_t begin, done;
static void *worker(void *unused) {
  for (int i = 0; i < times; ++i) {
    sem_wait(&begin);
    PyGILState_STATE state = PyGILState_Ensure();
    run();
    PyGILState_Release(state);
    sem_post(&done);
  }
  return NULL;
}

/* Two threads that take turns with one thread state. */
static PyThreadState *shared;
static sem_t turns[2];
static void *turner(void *number) {
  const int me = (int)(size_t)number;
  for (int i = me; i < times; i += 2) {
    sem_wait(&turns[me]);
    PyEval_RestoreThread(shared);
    run();
    shared = PyEval_SaveThread();
    sem_post(i + 1 < times ? &turns[!me] : &done);
  }
  return NULL;
}

/* A thread that makes interpreters, uses them, and leaves their end to another. */
static void *maker(void *unused) {
  PyThreadState *mine = PyThreadState_New(PyInterpreterState_Main());
  PyEval_RestoreThread(mine);
  for (int i = 0; i < times; ++i) {
    shared = Py_NewInterpreter();
    run();
    PyThreadState_Swap(mine);
    run();
    PyEval_SaveThread();
    sem_post(&turns[0]);
    sem_wait(&turns[1]);
    PyEval_RestoreThread(mine);
    run();
  }
  PyThreadState_Clear(mine);
  PyThreadState_DeleteCurrent();
  return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *), int number) {
  if (pthread_create(thread, NULL, body, (void *)(size_t)number) != 0) _exit(2);
}

int main(int argc, char **argv) {
  const char *way = argv[1];
  script = argv[2];
  times = atoi(argv[3]);
  PyImport_AppendInittab("host", &make_host);
  pthread_t threads[2];
  if (strcmp(way, "again") == 0) {
    for (int i = 0; i < times; ++i) one_life(NULL);
  } else if (strcmp(way, "with another") == 0) {
    for (int i = 0; i < times; ++i) {
      Py_Initialize();
      PyThreadState *mine = PyThreadState_Get();
      run();
      PyThreadState *other = Py_NewInterpreter();
      run();
      Py_EndInterpreter(other);
      PyThreadState_Swap(mine);
      run();
      finalize();
    }
  } else if (strcmp(way, "in threads") == 0) {
    for (int i = 0; i < times; ++i) {
      start(&threads[0], one_life, 0);
      pthread_join(threads[0], NULL);
    }
  } else if (strcmp(way, "worker") == 0) {
    sem_init(&begin, 0, 0);
    sem_init(&done, 0, 0);
    start(&threads[0], worker, 0);
    for (int i = 0; i < times; ++i) {
      Py_Initialize();
      PyThreadState *mine = PyEval_SaveThread();
      sem_post(&begin);
      sem_wait(&done);
      PyEval_RestoreThread(mine);
      finalize();
    }
    pthread_join(threads[0], NULL);
  } else if (strcmp(way, "turns") == 0) {
    Py_Initialize();
    shared = PyThreadState_New(PyInterpreterState_Get());
    sem_init(&turns[0], 0, 1);
    sem_init(&turns[1], 0, 0);
    sem_init(&done, 0, 0);
    PyThreadState *mine = PyEval_SaveThread();
    start(&threads[0], turner, 0);
    start(&threads[1], turner, 1);
    sem_wait(&done);
    PyEval_RestoreThread(mine);
    PyThreadState_Clear(shared);
    PyThreadState_Delete(shared);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    run();
    finalize();
  } else if (strcmp(way, "ended elsewhere") == 0) {
    Py_Initialize();
    sem_init(&turns[0], 0, 0);
    sem_init(&turns[1], 0, 0);
    PyThreadState *mine = PyEval_SaveThread();
    start(&threads[0], maker, 0);
    for (int i = 0; i < times; ++i) {
      sem_wait(&turns[0]);
      PyEval_RestoreThread(shared);
      Py_EndInterpreter(shared);
      PyThreadState_Swap(mine);
      run();
      PyEval_SaveThread();
      sem_post(&turns[1]);
    }
    pthread_join(threads[0], NULL);
    PyEval_RestoreThread(mine);
    finalize();
  }
  return 0;
}
"""


def config(name: str) -> str:
    return str(sysconfig.get_config_var(name) or "")


def compiler() -> list[str]:
    """The compiler that made the interpreter's library, which may be of its own code (LTO)."""
    command = shlex.split(config("CC"))
    if not command or shutil.which(command[0]) is None:
        return ["gcc"]
    return [*command, *(flag for flag in config("LDFLAGS").split() if flag.startswith("-fuse-ld"))]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked with the library of the interpreter that runs the tests."""
    folders = [config("LIBDIR"), config("LIBPL")]
    if not any((Path(folder) / config("LDLIBRARY")).exists() for folder in folders):
        pytest.skip("this interpreter came without its library, so nothing can embed it")
    build = tmp_path_factory.mktemp("host")
    (build / "host.c").write_text(HOST)
    name = config("LDLIBRARY").removeprefix("lib").removesuffix(".so").removesuffix(".a")
    subprocess.run(
        [
            *(*compiler(), "-o", "host", "host.c", f"-I{sysconfig.get_path('include')}"),
            *(f"-L{folder}" for folder in folders),
            *(f"-l{name}", f"-Wl,-rpath,{folders[0]}", "-lpthread", "-ldl", "-lutil", "-lm"),
            *config("LINKFORSHARED").split(),
            *(["-fsanitize=address"] if ADDRESS_SANITIZER else []),
        ],
        cwd=build,
        check=True,
    )
    return build / "host"


def embed(host: Path, way: str, script: str, times: int = 1) -> Outcome:
    path = [str(Path(greenlet.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [host, way, textwrap.dedent(script), str(times)],
            env={
                **os.environ,
                "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
                "PYTHONPATH": ":".join(filter(None, path)),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20 * TIME_SCALE,
            check=False,
        )
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"the program hangs\nstdout: {hung.stdout!r}\nstderr: {hung.stderr!r}")
    return Outcome(done.returncode, done.stdout, done.stderr)


EVERYTHING = """
    import gc, threading
    from greenlet import GreenletExit, error, getcurrent, gettrace, greenlet, settrace, stacks

    main = getcurrent()
    assert main.parent is None
    assert gettrace() is None
    assert stacks.statistics().in_use == 0, stacks.statistics()

    def run(value):
        try:
            while True:
                value = main.switch(value)
        except GreenletExit:
            pass

    def in_thread():
        family = [greenlet(getcurrent().switch) for _ in range(5)]
        for g in family:
            g.switch()
        family[0].itself = family[0]

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    settrace(lambda event, pair: None)
    family = [greenlet(run) for _ in range(20)]
    for i in range(10):
        assert [g.switch(i) for g in family] == [i] * 20
    family[0].throw()
    assert family[0].dead
    family[1].itself = family[1]
    del family[:5]
    settrace(None)
"""

DROP_ALL = """
    del family
    gc.collect()
"""


@pytest.mark.parametrize("way", ["again", "in threads", "worker"])
@pytest.mark.parametrize("left", ["with greenlets suspended", "with none"])
def test_python_may_live_several_times_in_one_process(host: Path, way: str, left: str) -> None:
    script = EVERYTHING
    if left == "with none":
        script += DROP_ALL
    else:
        # A greenlet that is suspended when Python ends keeps its stack: nothing can run in it.
        script = script.replace("assert stacks.statistics().in_use == 0", "assert True")
    outcome = embed(host, way, script, 4)
    assert outcome == (0, "end 0\n" * 4, "")


def test_each_life_of_python_has_a_main_greenlet_of_its_own(host: Path) -> None:
    script = """
        from greenlet import _greenlet, getcurrent, greenlet
        assert _greenlet.get_total_main_greenlets() == 1
        assert greenlet(lambda: getcurrent().parent).switch() is getcurrent()
        assert not hasattr(getcurrent(), "mark")
        getcurrent().mark = True
    """
    assert embed(host, "again", script, 5) == (0, "end 0\n" * 5, "")


# The places that call host.finalize().
INSIDE: dict[str, str] = {
    "the main greenlet": "host.finalize()",
    "a greenlet that is a C function": "greenlet(host.finalize).switch()",
    "a greenlet": "greenlet(lambda: host.finalize()).switch()",
    "a greenlet in a greenlet": "greenlet(lambda: greenlet(lambda: host.finalize()).switch())"
    ".switch()",
    "a greenlet that was resumed": """
g = greenlet(lambda: (main.switch(), host.finalize()))
g.switch()
g.switch()
""",
    "a deep recursion": """
def deep(level):
    if level:
        return deep(level - 1)
    host.finalize()

sys.setrecursionlimit(20_000)
greenlet(deep).switch(9_000)
""",
    "a greenlet below a deep recursion": """
def deep(level):
    if level:
        return deep(level - 1)
    greenlet(lambda: host.finalize()).switch()

sys.setrecursionlimit(20_000)
deep(9_000)
""",
    "an exception handler in a generator": """
def generator():
    try:
        raise KeyError
    except KeyError:
        host.finalize()
    yield

greenlet(lambda: list(generator())).switch()
""",
    "a C caller": "greenlet(lambda: sorted([1, 2], key=lambda _: host.finalize())).switch()",
    "a context": """
import contextvars
greenlet(lambda: contextvars.copy_context().run(host.finalize)).switch()
""",
    "a finalizer": """
class Dropped:
    def __del__(self):
        host.finalize()

greenlet(lambda: Dropped() and None).switch()
""",
}

BESIDE = """
import atexit, host, sys
from greenlet import getcurrent, greenlet

main = getcurrent()

def leave():
    local = [object()]
    try:
        main.switch()
    finally:
        local.clear()

beside = [greenlet(leave) for _ in range(5)]
for g in beside:
    g.switch()
beside[0].itself = beside[0]
del beside[1]

class Late:
    def __init__(self):
        self.functions = [getcurrent, greenlet, lambda: greenlet(int).switch()]

    def __del__(self):
        for function in self.functions:
            try:
                function()
            except BaseException:
                pass

late = Late()
main.late = Late()
sys.late = Late()
atexit.register(lambda: greenlet(print).switch("at exit"))
"""


@pytest.mark.parametrize("place", INSIDE)
def test_python_may_be_ended_inside(host: Path, place: str) -> None:
    # None of it switches to the main greenlet, because the script would go on there.
    outcome = embed(host, "again", BESIDE + INSIDE[place] + "\nprint('not reached')\n")
    assert outcome == (0, "at exit\nend 0\n", "")


# For programs in which a greenlet goes on in another OS thread than it has begun in.
thread_states_move = pytest.mark.skipif(
    DEBUG_BUILD or (VERSION < (3, 14) and bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))),
    reason="debug builds assert that a thread state stays in its thread; code of shared libraries"
    " may keep addresses of thread-local variables, as Debian's 3.13 does",
)


@thread_states_move
def test_a_thread_state_may_move_between_threads_of_the_program(host: Path) -> None:
    script = """
        import builtins
        from greenlet import getcurrent, greenlet

        def body():
            total = 0
            while True:
                total += getcurrent().parent.switch(total) or 1

        state = builtins.__dict__.setdefault("state", {})
        if getcurrent() in state:  # this thread state was here before
            g, count = state[getcurrent()]
        else:
            g, count = greenlet(body), 0
        assert g.switch() == count
        state[getcurrent()] = g, count + 1
        print(len(state), count)
    """
    outcome = embed(host, "turns", script, 6)
    turns = [f"1 {turn}" for turn in range(6)]
    assert outcome == (0, "\n".join([*turns, "2 0", "end 0", ""]), "")


@thread_states_move
def test_a_greenlet_waits_while_threads_take_turns_with_a_thread_state(host: Path) -> None:
    # The first thread only looks at the greenlet, the second starts it, and the first resumes it.
    script = """
        from greenlet import getcurrent, greenlet
        main = getcurrent()
        turn = globals().get("turn", -1) + 1
        if turn == 1:
            g = greenlet(lambda value: [value := main.switch(value) for _ in range(9)])
        if 0 < turn < 4:
            print(g.switch(turn), flush=True)
    """
    assert embed(host, "turns", script, 4) == (0, "1\n2\n3\nend 0\n", "")


def test_an_interpreter_may_be_ended_by_a_thread_that_did_not_use_it(host: Path) -> None:
    """The next thread state may have the same address, and must not be taken for the old one."""
    if DEBUG_BUILD:
        pytest.skip("CPython asserts in debug builds that a thread state stays in its thread")
    if VERSION < (3, 12):
        pytest.skip("the end of an interpreter of 3.11 waits for the thread that made it")
    script = """
        from greenlet import getcurrent, greenlet

        def run(value):
            while True:
                value = getcurrent().parent.switch(value)

        main = getcurrent()
        before = globals().setdefault("family", [])
        assert all(g.dead or g.switch("again") == "again" for g in before if g.parent is main)
        mine = [greenlet(run) for _ in range(5)]
        assert [g.switch(i) for i, g in enumerate(mine)] == [*range(5)]
        family += mine
    """
    assert embed(host, "ended elsewhere", script, 6) == (0, "end 0\n", "")


def test_each_life_of_python_has_the_type_as_new(host: Path) -> None:
    """The type is the same object in each life of Python, and what a life leaks refers to it."""
    script = """
        import builtins, host, sys, weakref
        from greenlet import GreenletExit, error, getcurrent, greenlet

        assert greenlet.__subclasses__() == []
        assert greenlet.__mro__ == (greenlet, object)
        assert greenlet.GreenletExit is GreenletExit and greenlet.error is error
        assert greenlet.getcurrent is getcurrent
        assert "settrace" in vars(greenlet) and not hasattr(greenlet, "mark")

        class Left(greenlet):
            mark = "left"

            def run(self):
                return getcurrent().parent.switch(self.mark)

            @property
            def switch_twice(self):
                return [self.switch() for _ in range(2)]

        assert greenlet.__subclasses__() == [Left]
        for _ in range(100):  # until CPython has specialized it
            assert Left().switch_twice == ["left", ()]
        left = Left()
        assert left.switch() == "left"
        left.references = [weakref.ref(greenlet), weakref.ref(Left)]
        left.itself = sys.left = builtins.left = left
        host.leak(left)
        host.leak(Left)
        assert isinstance(left, greenlet)
    """
    assert embed(host, "again", script, 5) == (0, "end 0\n" * 5, "")


def test_each_life_of_python_may_have_other_interpreters(host: Path) -> None:
    script = """
        from greenlet import getcurrent, greenlet
        g = greenlet(lambda: getcurrent().parent.switch(type(g)))
        assert g.switch() is greenlet
        print("heap type" if greenlet.__flags__ >> 9 & 1 else "static type", flush=True)
    """
    life = "static type\nheap type\nstatic type\nend 0\n"
    assert embed(host, "with another", script, 3) == (0, life * 3, "")


# Runs in a second thread state of the thread, and leaves a greenlet suspended.
LEAVE = r"""
import os
from greenlet import getcurrent, greenlet

class Held:
    def __del__(self):
        os.write(1, b"held\n")

def leave():
    held = Held()
    try:
        getcurrent().parent.switch()
    finally:
        os.write(1, b"finally\n")
        del held

g = greenlet(leave)
g.switch()
"""

# Runs while Python ends, after everything else has ended.
COUNT_LATE = r"""
import sys
from greenlet import _greenlet

class Late:
    def __init__(self):
        self.statistics, self.write = _greenlet._stack_statistics, os.write

    def __del__(self):
        self.write(1, b"in use %d\n" % self.statistics()[1])

sys.late = Late()
"""

INSIDE_OR_NOT = pytest.mark.parametrize(
    "inside", [False, True], ids=["on its own stack", "in a greenlet"]
)
STATES_CHANGE = pytest.mark.skipif(
    VERSION < (3, 12), reason="PyGILState_Ensure() of 3.11 does not know of a changed thread state"
)


@STATES_CHANGE
@INSIDE_OR_NOT
def test_a_second_thread_state_of_a_thread_ends_its_greenlets(host: Path, inside: bool) -> None:
    script = f"""
import gc, host, os
from greenlet import greenlet, stacks

def use():
    host.use("fresh", {LEAVE!r})
    print("in use", stacks.statistics().in_use, flush=True)

greenlet(use).switch() if {inside} else use()
gc.collect()
"""
    outcome = embed(host, "again", script, 3)
    assert outcome == (0, f"finally\nheld\nin use {int(inside)}\nend 0\n" * 3, "")


@STATES_CHANGE
@INSIDE_OR_NOT
def test_a_thread_state_that_is_left_behind_ends_its_greenlets_at_exit(
    host: Path, inside: bool
) -> None:
    script = f"""
import gc, host, os

def use():
    host.use("kept", {LEAVE!r})

if {inside}:
    from greenlet import greenlet
    greenlet(use).switch()
else:
    use()  # imports greenlet for the first time
gc.collect()
print("used", flush=True)
"""
    outcome = embed(host, "again", script + COUNT_LATE)
    assert outcome == (0, "used\nfinally\nheld\nin use 0\nend 0\n", "")


@pytest.mark.skipif(VERSION < (3, 14), reason="then Py_Finalize() does not end other interpreters")
@INSIDE_OR_NOT
def test_an_interpreter_that_is_left_to_the_end_of_python_ends_its_greenlets(
    host: Path, inside: bool
) -> None:
    script = f"""
import host, os
from greenlet import greenlet
use = lambda: host.use("interpreter", {LEAVE!r})
greenlet(use).switch() if {inside} else use()
print("used", flush=True)
"""
    outcome = embed(host, "again", script + COUNT_LATE)
    assert outcome[:2] == (0, "used\nfinally\nheld\nin use 0\nend 0\n"), outcome
    assert "remaining subinterpreters" in outcome.stderr


USE_STACK = r"""
import os, sys
from greenlet import getcurrent
getcurrent()

class Dropped:
    def __del__(self):
        os.write(1, b"dropped\n")

[Dropped()]
sys.setrecursionlimit(1_000_000)

def deep(level):
    return sorted([level], key=lambda level: deep(level + 1))

try:
    deep(0)
except RecursionError:
    os.write(1, b"bounded\n")
"""


@pytest.mark.skipif(VERSION < (3, 14), reason="before, nothing depends on the bounds of the stack")
@pytest.mark.parametrize("kind", ["fresh", "kept", "interpreter"])
@pytest.mark.parametrize("first", ["on its own stack", "in a greenlet"])
def test_thread_states_know_the_stack_they_run_on(host: Path, kind: str, first: str) -> None:
    """C code keeps them and uses them on several stacks. A use of greenlets sets their bounds."""
    script = f"""
import host
from greenlet import greenlet

def use():
    host.use({kind!r}, {USE_STACK!r})

def inside():
    greenlet(use).switch()
    greenlet(lambda: greenlet(use).switch()).switch()

if {first == "in a greenlet"}:
    inside()
use()
inside()
use()
"""
    times = 6 if first == "in a greenlet" else 4
    outcome = embed(host, "again", script)
    assert outcome[:2] == (0, "dropped\nbounded\n" * times + "end 0\n"), outcome
