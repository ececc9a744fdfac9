"""What only Windows has: two C++ runtimes, and faults that are exceptions."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from greenlet import greenlet
from helpers import load_extension, run_clean, run_script, to_parent

if sys.platform != "win32":
    pytest.skip("is about Windows", allow_module_level=True)

COMPILED = os.environ.get("GREENLET_COMPILED", "")


def library() -> str:
    if not COMPILED:
        pytest.skip("tools/windows_test.py compiles catching.cpp")
    return str(Path(COMPILED, "catching.dll"))


# --- exceptions of Microsoft's C++ runtime --------------------------------------------------------


@pytest.fixture(scope="module")
def catching() -> Any:
    loaded = ctypes.PyDLL(library())
    loaded.handle.argtypes = ctypes.py_object, ctypes.c_long, ctypes.c_long
    loaded.handle.restype = ctypes.py_object
    return loaded


def interleaved(greenlets: list[greenlet]) -> dict[int, Any]:
    """Resume them in turns until they have ended; return what they returned."""
    results: dict[int, Any] = {}
    while not all(g.dead for g in greenlets):
        for index, g in enumerate(greenlets):
            if not g.dead:
                results[index] = g.switch()
    return results


def test_exceptions_of_microsofts_runtime_interleave(catching: Any) -> None:
    """Each greenlet has its own exception that is handled, and its own catch blocks."""
    greenlets = [greenlet(catching.handle) for _ in range(3)]
    for index, g in enumerate(greenlets):
        g.switch(to_parent, index, index + 1)
    assert interleaved(greenlets) == {
        0: [0, 0, 1],
        1: [1, 10, 101, 1012],
        2: [2, 20, 201, 2012, 20123],
    }
    assert catching.count_living() == 0


# --- faults ---------------------------------------------------------------------------------------

OVERFLOW = """
import ctypes, sys
from greenlet import getcurrent, greenlet, stacks

recurse = ctypes.CDLL(sys.argv[1]).recurse
main = getcurrent()

def overflows():
    try:
        recurse(1 << 30)
    except OSError as error:  # ctypes handles the exception
        print(error, flush=True)
        main.switch()

def waits(*values):
    for _ in range(20):
        assert main.switch() == values
    return recurse(100)

others = [greenlet(waits) for _ in range(20)]
for index, other in enumerate(others):
    other.switch(index, [index])
"""


def test_an_overflow_is_an_exception_and_leaves_other_greenlets_as_they_are() -> None:
    said = run_script(
        OVERFLOW
        + """
g = greenlet(overflows)
g.switch()
g.switch()
assert g.dead
for _ in range(20):
    results = [other.switch(index, [index]) for index, other in enumerate(others)]
assert results == [101] * 20
new = [greenlet(lambda: recurse(5000)) for _ in range(30)]  # one has the stack that overflowed
assert [each.switch() for each in new] == [5001] * 30
print("done")
""",
        args=[library()],
    )
    assert said.stdout.splitlines() == ["exception: stack overflow", "done"]
    assert said.returncode == 0
    assert "Windows fatal exception: stack overflow" in said.stderr  # by faulthandler


def test_an_overflow_is_reported() -> None:
    said = run_script(
        OVERFLOW
        + """
stacks.report_overflow()
# Each on a stack of its own: Windows makes no new guard page, so a stack overflows only once.
family = [greenlet(overflows) for _ in range(2)]
family[0].switch()
recurse(100)
stacks.report_overflow(False)
family[1].switch()
""",
        args=[library()],
    )
    assert said.stdout.splitlines() == ["exception: stack overflow"] * 2
    reports = [line for line in said.stderr.splitlines() if line.startswith("greenlet: in thread ")]
    assert len(reports) == 1
    assert " a greenlet has used up its C stack of " in reports[0]


@pytest.mark.parametrize("place", ["main", "thread", "greenlet"])
def test_an_exception_that_nobody_handles_reaches_the_filter_of_the_program(place: str) -> None:
    said = run_script(
        """
        import ctypes, faulthandler, sys, threading
        from greenlet import greenlet

        faulthandler.disable()
        kind = ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p)

        @kind
        def last_filter(about):
            print("filter", flush=True)
            return 1  # EXCEPTION_EXECUTE_HANDLER: the process ends

        ctypes.windll.kernel32.SetUnhandledExceptionFilter(last_filter)
        if sys.argv[1] == "thread":
            thread = threading.Thread(target=faulthandler._read_null)
            thread.start()
            thread.join()
        elif sys.argv[1] == "greenlet":
            greenlet(faulthandler._read_null).switch()
        else:
            faulthandler._read_null()
        """,
        args=[place],
    )
    assert said.stdout == "filter\n"
    assert said.returncode == 0xC0000005


# --- exceptions of gcc's C++ runtime --------------------------------------------------------------


def test_a_cpp_runtime_may_be_loaded_when_greenlets_have_switched_already(tmp_path: Path) -> None:
    """The first switch after that already tells them apart."""
    unwinding = load_extension("unwinding.cpp", tmp_path)
    said = run_clean(
        """
        import ctypes, importlib.util, sys
        from greenlet import getcurrent, greenlet

        handle = None

        def work(name, depth):
            while handle is None:
                main.switch()
            return handle(name, depth)

        main = getcurrent()
        greenlets = [greenlet(work) for _ in range(3)]
        for index, g in enumerate(greenlets):
            g.switch(str(index), index + 1)
        if ctypes.windll.kernel32.GetModuleHandleW("libstdc++-6.dll"):
            sys.exit("the process has had a C++ runtime from the beginning")
        spec = importlib.util.spec_from_file_location("unwinding", sys.argv[1])
        unwinding = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(unwinding)
        handle = unwinding.handle
        while greenlets:
            for g in list(greenlets):
                result = g.switch()
                if g.dead:
                    print(result)
                    greenlets.remove(g)
        """,
        args=[str(unwinding.__file__)],
    )
    assert said.splitlines() == [
        "['0', '0/0', '0/0/1']",
        "['1', '1/0', '1/0/1', '1/0/1/2']",
        "['2', '2/0', '2/0/1', '2/0/1/2', '2/0/1/2/3']",
    ]
