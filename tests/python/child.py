"""What programs that tests run in child processes import: memory, limits, threads, interpreters.

helpers.run_script() lets them find this file. It does not import greenlet, as some of the programs
are about the import itself.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import mmap
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

if sys.platform != "win32":  # it has no such limits
    import resource


def c_library() -> ctypes.CDLL:
    """Return the C library that the interpreter uses."""
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


def pages_as_bytes(field: int) -> int:
    """Return a field of /proc/self/statm: 0 is address space, 1 resident memory, 5 data."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field]) * mmap.PAGESIZE


def address_space() -> int:
    return pages_as_bytes(0)


def resident() -> int:
    """Return the resident memory without what a collection frees."""
    gc.collect()
    return resident_now()


def resident_now() -> int:
    """Return the resident memory."""
    if sys.platform == "win32":
        return memory_counters()[2]  # WorkingSetSize
    return pages_as_bytes(1)


def page_faults() -> int:
    """Return how often the process has got a page that no disk had to be read for."""
    if sys.platform == "win32":
        return memory_counters()[0] >> 32  # two numbers of 32 bits are in that word
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def memory_counters() -> list[int]:
    """Return PROCESS_MEMORY_COUNTERS on Windows."""
    counters = (ctypes.c_size_t * 9)()
    kernel: Any = vars(ctypes)["windll"].kernel32
    kernel.K32GetProcessMemoryInfo.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    size = ctypes.sizeof(counters)
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), counters, size):
        raise OSError("K32GetProcessMemoryInfo")
    return list(counters)


def set_limit(name: str, mebibytes: int) -> None:
    """Set RLIMIT_AS or RLIMIT_DATA to so much above what is in use."""
    used = pages_as_bytes({"RLIMIT_AS": 0, "RLIMIT_DATA": 5}[name])
    limit = used + (mebibytes << 20)
    resource.setrlimit(getattr(resource, name), (limit, limit))


def run_threads(*functions: Callable[[], object]) -> None:
    """Run each function in a thread of its own, at the same time, and wait for all of them."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Interpreter:
    """Another interpreter of the process, by the module that this version has for that."""

    def __init__(self, own_gil: bool = True) -> None:
        if sys.version_info >= (3, 13):
            self._module: Any = importlib.import_module("_interpreters")
            self.id = self._module.create("isolated" if own_gil else "legacy")
        else:
            self._module = importlib.import_module("_xxsubinterpreters")
            self.id = self._module.create(isolated=own_gil)

    def run(self, source: str) -> None:
        source = textwrap.dedent(source)
        if sys.version_info >= (3, 13):
            failure = self._module.exec(self.id, source)
            if failure is not None:
                raise RuntimeError(getattr(failure, "errdisplay", failure))
        else:
            self._module.run_string(self.id, source)

    def close(self) -> None:
        self._module.destroy(self.id)
