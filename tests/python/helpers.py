"""What the files of the Python suite share.

Child processes under a time limit; threads that start together; collections; and the facts about
the interpreter that tests depend on, as data. child.py has what the child processes share.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import greenlet as greenlet_package
import pytest
from greenlet import getcurrent, greenlet

T = TypeVar("T")

VERSION = sys.version_info[:2]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
_OPTIONS = sysconfig.get_config_var("CONFIG_ARGS") or ""
ADDRESS_SANITIZER = "--with-address-sanitizer" in _OPTIONS
THREAD_SANITIZER = "--with-thread-sanitizer" in _OPTIONS

COUNTS_LINES = "GREENLET_COVERAGE" in os.environ  # make coverage
EMULATED = "GREENLET_EMULATED" in os.environ  # make test-arch
# With assertions, with a sanitizer, without optimization or in an emulator all is several times
# slower. There the time limits are longer, and tests repeat less often.
IS_SLOW = DEBUG_BUILD or ADDRESS_SANITIZER or COUNTS_LINES or EMULATED
ON_WINDOWS = sys.platform == "win32"  # under Wine it takes a second to start a process
TIME_SCALE = 10.0 if THREAD_SANITIZER or EMULATED else 5.0 if IS_SLOW or ON_WINDOWS else 1.0

COMPILE = Path(__file__).parent.parent / "extensions" / "compile.py"

# How deep recursion through C goes in 8 MiB, and in eight times as much. 3.12 and 3.13 count calls,
# whatever the size of the stack. Microsoft's compiler makes larger frames.
IN_USUAL, IN_LARGE = (
    (400, 400)
    if (3, 12) <= VERSION < (3, 14)
    else (2_000, 20_000)
    if ON_WINDOWS
    else (4_000, 40_000)
)

# The first CPython release that has a feature tests speak about.
FIRST_RELEASE: Mapping[str, tuple[int, int]] = {
    "sys.monitoring": (3, 12),
    # Before 3.12 only the Python recursion limit keeps a program from the end of its C stack, in a
    # thread as in a greenlet. So with a raised limit the program may crash there.
    "C recursion is bounded for itself": (3, 12),
    "sys._is_gil_enabled": (3, 13),
    "threading.setprofile_all_threads": (3, 12),
    "concurrent.interpreters": (3, 14),
    "sys.remote_exec": (3, 14),
    "profiling.sampling": (3, 15),
    "instrumentation of frames, for us": (3, 15),
}


def since(feature: str) -> pytest.MarkDecorator:
    """Mark a test that needs `feature`, which older interpreters do not have."""
    release = FIRST_RELEASE[feature]
    return pytest.mark.skipif(
        release > VERSION, reason=f"{feature} came with {release[0]}.{release[1]}"
    )


only_free_threaded = pytest.mark.skipif(
    not FREE_THREADED, reason="is about builds that run without the GIL"
)

# When a trace function is set or removed, CPython instruments the code of the frames that run at
# that moment. 3.15 exports what we need to do the same for a frame that is resumed later. Before
# 3.15 such a frame goes on as it is. That is sound, but debug builds assert in debug_check_sanity()
# that it does not happen.
frames_are_instrumented_anew = pytest.mark.skipif(
    DEBUG_BUILD and (3, 12) <= VERSION < (3, 15),
    reason="debug builds before 3.15 assert that all frames know the trace functions of the moment",
)


# For tests with more suspended greenlets than the addresses of a process suffice for.
needs_many_addresses = pytest.mark.skipif(
    sys.maxsize < 1 << 32, reason="with 32 bits some 4,000 stacks fit"
)

# For tests that look at the memory of suspended stacks, or at their C frames. In the mode that
# freezes every stack that is left there is nothing to see.
stacks_stay_in_place = pytest.mark.skipif(
    "GREENLET_TEST_FREEZING" in os.environ,
    reason="GREENLET_TEST_FREEZING freezes each stack that is left",
)

# For tests that measure the memory of a process.
memory_is_given_back = pytest.mark.skipif(
    ADDRESS_SANITIZER,
    reason="AddressSanitizer keeps what is freed, and shadows of it",
)

# For tests in which gdb writes a core file.
core_files_are_small = pytest.mark.skipif(
    ADDRESS_SANITIZER, reason="gdb would write all of AddressSanitizer's shadow memory"
)


class Outcome(NamedTuple):
    """How a child process ended."""

    returncode: int
    stdout: str
    stderr: str


def with_tests_on_path() -> str:
    """Return a PYTHONPATH with this folder, so that a program can import child.py and the rest."""
    return os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))


def run_script(
    source: str,
    *,
    timeout: float = 30.0,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a program in a child process and fail the test if it has not ended in time."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *args]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout * TIME_SCALE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": with_tests_on_path(), **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as hung:
        pytest.fail(
            f"the script did not end within {hung.timeout} s\n"
            f"stdout: {_text(hung.stdout)}\nstderr: {_text(hung.stderr)}"
        )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_clean(
    source: str,
    *,
    timeout: float = 30.0,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program that must succeed and print nothing on stderr; return what it printed."""
    outcome = run_script(source, timeout=timeout, args=args, env=env)
    if outcome.returncode or outcome.stderr:
        pytest.fail(
            f"the script ended with {outcome.returncode}\n"
            f"stdout: {outcome.stdout}\nstderr: {outcome.stderr}"
        )
    return outcome.stdout.strip()


def run_machine(name: str, *options: str, timeout: float = 60.0) -> dict[str, Any]:
    """Run a program of this folder that must succeed; return its last line, which is JSON."""
    command = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name(name)), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout * TIME_SCALE, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compile_extension(source: str, folder: Path, *flags: str) -> Path:
    """Compile a file of tests/extensions; return the path of the module."""
    headers = Path(greenlet_package.__file__).parent.parent  # the header is beside the package
    done = subprocess.run(
        [sys.executable, COMPILE, source, headers, folder, *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def load_extension(source: str, folder: Path, *flags: str) -> types.ModuleType:
    """Compile a file of tests/extensions and import it."""
    path = compile_extension(source, folder, *flags)
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def address_of(thing: object) -> str:
    """Return the address as texts of objects have it: their digits differ between systems."""
    return object.__repr__(thing).rpartition(" at ")[2].rstrip(">")


def _text(captured: bytes | str | None) -> str:
    if isinstance(captured, bytes):
        return captured.decode(errors="replace")
    return captured or ""


def parallelize(function: Callable[[int], T], threads: int = 4) -> list[T]:
    """Call function(0), function(1)… in threads that start together; return the results.

    A failure in any thread is raised here, so that an assertion in a worker fails the test.
    """
    barrier = threading.Barrier(threads)
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            barrier.wait()
            results[index] = function(index)
        except BaseException as failure:
            failures.append(failure)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(threads)]


def in_thread(function: Callable[[], T]) -> T:
    """Call function() in a thread of its own and return its result."""
    return parallelize(lambda index: function(), threads=1)[0]


def to_parent(*args: Any, **kwargs: Any) -> Any:
    """Leave the current greenlet for its parent; return what the next switch here brings."""
    parent = getcurrent().parent
    assert parent is not None, "the main greenlet has no parent to go to"
    return parent.switch(*args, **kwargs)


@contextmanager
def collections_after(allocations: int | None) -> Iterator[None]:
    """Let the collector run after so many allocations, or as usual (None)."""
    if allocations is None:
        yield
        return
    usual = gc.get_threshold()
    if FREE_THREADED:
        gc.set_threshold(
            allocations, 0, 0
        )  # without zeros it waits until a quarter of all objects is new
    else:
        gc.set_threshold(allocations, 5, 5)  # one collection in 25 looks at all objects
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def in_background(*functions: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run functions in threads during the block. Each has to return once its event is set."""
    stop = threading.Event()
    threads = [threading.Thread(target=function, args=[stop]) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def collect() -> None:
    """Collect until nothing more can become unreachable through finalizers that ran before."""
    for _ in range(3):
        if gc.collect() == 0:
            break


def collect_twice() -> None:
    """Collect what is garbage now, and then what its finalizers have released."""
    for _ in range(2):
        gc.collect()


def in_a_cycle(run: Callable[[], Any]) -> weakref.ref[greenlet]:
    """Leave a greenlet suspended in `run`; only an attribute of its own refers to it."""
    g: Any = greenlet(run)
    g.itself = g
    g.switch()
    return weakref.ref(g)


def collect_until(stop: threading.Event) -> None:
    """Collect again and again, while other threads run.

    On free-threaded builds a collection stops the other threads. Without a pause the next
    collection stops a thread again before it has run.
    """
    while not stop.wait(0.0005):
        gc.collect()


class Unraisable:
    """Records what reaches sys.unraisablehook while it is installed as a context manager.

    Keeps types and messages only, because the exceptions would keep their frames alive.
    """

    def __init__(self) -> None:
        self.types: list[type[BaseException]] = []
        self.messages: list[str] = []

    def __enter__(self) -> Self:
        self._previous = sys.unraisablehook
        sys.unraisablehook = self._record
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.unraisablehook = self._previous

    def _record(self, report: Any) -> None:
        self.types.append(report.exc_type)
        self.messages.append(str(report.exc_value))
