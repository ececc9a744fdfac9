"""What only Windows has: two C++ runtimes, and faults that are exceptions."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from greenlet import greenlet
from helpers import load_extension, run_clean, to_parent

if sys.platform != "win32":
    pytest.skip("is about Windows", allow_module_level=True)

COMPILED = os.environ.get("GREENLET_COMPILED", "")


# --- exceptions of Microsoft's C++ runtime --------------------------------------------------------


@pytest.fixture(scope="module")
def catching() -> Any:
    if not COMPILED:
        pytest.skip("tools/windows_test.py compiles catching.cpp")
    library = ctypes.PyDLL(str(Path(COMPILED, "catching.dll")))
    library.handle.argtypes = ctypes.py_object, ctypes.c_long, ctypes.c_long
    library.handle.restype = ctypes.py_object
    return library


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
