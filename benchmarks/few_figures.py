"""Three figures as JSON, with either greenlet, on Windows: tools/windows_test.py runs it.

What one round trip of two switches takes, what it takes to make a greenlet and run it to its end,
and how much the working set grows for each of 10,000 greenlets that wait.
"""

import ctypes
import gc
import json
import time
from typing import Any

from greenlet import getcurrent, greenlet

main = getcurrent()


def waits() -> None:
    while True:
        main.switch()


def ends() -> None: ...


def round_trip() -> float:
    g = greenlet(waits)
    count = 100_000
    begin = time.perf_counter_ns()
    for _ in range(count):
        g.switch()
    return (time.perf_counter_ns() - begin) / count


def make_and_run() -> float:
    count = 20_000
    begin = time.perf_counter_ns()
    for _ in range(count):
        greenlet(ends).switch()
    return (time.perf_counter_ns() - begin) / count


def working_set() -> int:
    gc.collect()
    counters = (ctypes.c_size_t * 9)()  # PROCESS_MEMORY_COUNTERS; the third is WorkingSetSize
    kernel: Any = vars(ctypes)["windll"].kernel32
    kernel.K32GetProcessMemoryInfo.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), counters, ctypes.sizeof(counters))
    return counters[2]


def memory() -> float:
    count = 10_000
    before = working_set()
    family = [greenlet(waits) for _ in range(count)]
    for g in family:
        g.switch()
    return (working_set() - before) / count


if __name__ == "__main__":
    figures = {
        "round trip, ns": min(round_trip() for _ in range(3)),
        "make and run, ns": min(make_and_run() for _ in range(3)),
        "working set, bytes": memory(),
    }
    print(json.dumps({what: round(value) for what, value in figures.items()}))
