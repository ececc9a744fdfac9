#!/usr/bin/env python3
"""Many suspended greenlets at once: the time and the memory they take.

    python benchmarks/suspended.py [--count N] [--json]
        [--what trivial|frames|receive|idle_30|idle_120|deepest_30|deepest_120]

All are created, then all are started and suspend themselves, then all are resumed, each with a
number that it returns. What they are in the middle of: a function that does nothing else (trivial),
20 Python frames (frames), gevent's socket.recv() (receive), or so many nested calls in C
(deepest_30, deepest_120). Or they have returned from those and wait in a function that does nothing
else (idle_30, idle_120); these are measured when they have waited for some seconds, in which a few
others start and end. The exit status is 1 if one returns another number.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from mmap import MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from time import monotonic, perf_counter, sleep
from typing import Any, NamedTuple

import greenlet as package
from greenlet import getcurrent, greenlet

FRAMES = 20
DEPTHS = (30, 120)  # of calls in C
IDLE_SECONDS = 3.0
TOUCHED = 10 * 1024  # bytes for each greenlet: more than a trivial one takes
MAP_NORESERVE = 0x4000  # Python's mmap has the name since 3.13


class Memory(NamedTuple):
    """In bytes, as the kernel counts it."""

    resident: int
    page_tables: int

    @classmethod
    def now(cls) -> Memory:
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * resource.getpagesize()
        with open("/proc/self/status") as status:
            page_tables = next(int(line.split()[1]) for line in status if line[:6] == "VmPTE:")
        return cls(resident, page_tables * 1024)


class Measurement(NamedTuple):
    greenlets: int
    create_seconds: float
    start_seconds: float
    finish_seconds: float
    wrong: int
    resident_bytes: float  # for each suspended greenlet, the object itself included
    page_table_bytes: float  # the kernel's own memory, for each

    @classmethod
    def of(
        cls, count: int, times: Sequence[float], wrong: int, before: Memory, suspended: Memory
    ) -> Measurement:
        """`times`: before all, when created, when suspended; before they are resumed, and after."""
        return cls(
            count,
            times[1] - times[0],
            times[2] - times[1],
            times[4] - times[3],
            wrong,
            (suspended.resident - before.resident) / count,
            (suspended.page_tables - before.page_tables) / count,
        )


def touch_memory(greenlets: int) -> None:
    """Have what so many need, and give it back to the kernel.

    A virtual machine's host may have taken away what the kernel has free, and then a page's first
    use waits for the host to find another: several times what either greenlet takes. Page tables
    are made of other pages than a program's memory, so they are touched, too: one each.
    """
    page = resource.getpagesize()
    reach = page // 8 * page  # of a page table
    for size, step in ((greenlets * TOUCHED, page), (greenlets * reach, reach)):
        with mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE) as memory:
            with suppress(OSError):  # a kernel without huge pages
                memory.madvise(MADV_NOHUGEPAGE)
            for offset in range(0, size, step):
                memory[offset] = 1


def wait(suspend: Callable[[], object]) -> object:
    """What each runs. It keeps nothing: what grows is the greenlets alone."""
    return suspend()


def wait_deep(suspend: Callable[[], object], depth: int = FRAMES) -> object:
    """The same in the innermost of so many frames."""
    return suspend() if depth == 1 else wait_deep(suspend, depth - 1)


class Nested:
    """Its repr() makes so many nested calls in C, and then one of `bottom`."""

    def __init__(self, depth: int, bottom: Callable[[], object]) -> None:
        self.depth = depth
        self.bottom = bottom

    def __repr__(self) -> str:
        return repr(Nested(self.depth - 1, self.bottom)) if self.depth else str(self.bottom())


def wait_idle(suspend: Callable[[], object], depth: int) -> object:
    """Go deep, come back, and wait."""
    repr(Nested(depth, str))
    return suspend()


def wait_deepest(suspend: Callable[[], object], depth: int) -> object:
    """Wait at the deepest point."""
    return int(repr(Nested(depth, suspend)))


def let_time_go_by(seconds: float) -> None:
    """Now and then a greenlet starts, waits, and ends."""
    suspend = getcurrent().switch
    end = monotonic() + seconds
    while monotonic() < end:
        other = greenlet(suspend)
        other.switch()
        other.switch()
        sleep(0.01)


RUNS: dict[str, Callable[..., object]] = {
    "trivial": wait,
    "frames": wait_deep,
    **{f"idle_{depth}": partial(wait_idle, depth=depth) for depth in DEPTHS},
    **{f"deepest_{depth}": partial(wait_deepest, depth=depth) for depth in DEPTHS},
}


def measure(count: int, run: Callable[..., object], idle: float) -> Measurement:
    suspend = getcurrent().switch
    # The list has its full length before anything is measured.
    greenlets = [getcurrent()] * count
    # Everything that happens only once, the first time, happens now.
    first = greenlet(run)
    first.switch(suspend)
    first.switch(0)
    touch_memory(count)
    before = Memory.now()

    times = [perf_counter()]
    for index in range(count):
        greenlets[index] = greenlet(run)
    times.append(perf_counter())
    for each in greenlets:
        each.switch(suspend)
    times.append(perf_counter())
    let_time_go_by(idle)
    suspended = Memory.now()

    times.append(perf_counter())
    wrong = sum(each.switch(number) != number for number, each in enumerate(greenlets))
    times.append(perf_counter())
    wrong += sum(not each.dead for each in greenlets)
    return Measurement.of(count, times, wrong, before, suspended)


def measure_receiving(count: int) -> Measurement:
    """Of gevent's greenlets, each of which waits for a byte from a socket of its own."""
    import gevent
    from gevent import socket

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard // 2 - 100) if hard != resource.RLIM_INFINITY else count
    pairs = [socket.socketpair() for _ in range(count + 1)]

    def receive(index: int) -> bytes:
        data: bytes = pairs[index][0].recv(1)
        return data

    def byte(index: int) -> bytes:
        return bytes([index % 251])

    greenlets: list[Any] = [None] * count
    first = gevent.spawn(receive, count)
    gevent.sleep(0)
    pairs[count][1].send(byte(count))
    first.join()
    before = Memory.now()

    times = [perf_counter()]
    for index in range(count):
        greenlets[index] = gevent.spawn(receive, index)
    times.append(perf_counter())
    gevent.sleep(0)  # all of them start, and wait
    times.append(perf_counter())
    suspended = Memory.now()

    times.append(perf_counter())
    for index, (_, sender) in enumerate(pairs[:count]):
        sender.send(byte(index))
    gevent.joinall(greenlets)
    times.append(perf_counter())
    wrong = sum(each.value != byte(index) for index, each in enumerate(greenlets))
    return Measurement.of(count, times, wrong, before, suspended)


def report(measured: Measurement) -> None:
    count = measured.greenlets
    print(f"greenlet {package.__version__}: {count:,} suspended greenlets at once")
    for name, seconds in {
        "create": measured.create_seconds,
        "start and suspend": measured.start_seconds,
        "resume and finish": measured.finish_seconds,
    }.items():
        print(f"{name:<20}{seconds:>8.3f} s {seconds / count * 1e6:>10.2f} µs each")
    for name, each in {
        "resident memory": measured.resident_bytes,
        "page tables": measured.page_table_bytes,
    }.items():
        print(f"{name:<20}{each * count / 2**20:>6,.0f} MiB {each:>8,.0f} bytes each")
    print(f"{'wrong':<20}{f'{measured.wrong:,}' if measured.wrong else 'none':>8}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Many suspended greenlets at once.")
    parser.add_argument("--count", type=int, default=200_000, metavar="N")
    parser.add_argument("--what", choices=[*RUNS, "receive"], default="trivial")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    if options.what == "receive":
        measured = measure_receiving(options.count)
    else:
        idle = IDLE_SECONDS if options.what.startswith("idle") else 0.0
        measured = measure(options.count, RUNS[options.what], idle)
    if options.json:
        print(json.dumps(measured._asdict()))
    else:
        report(measured)
    return 1 if measured.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
