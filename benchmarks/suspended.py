#!/usr/bin/env python3
"""Many suspended greenlets at once: the time and the memory they take.

    python benchmarks/suspended.py [--count N] [--json]

All are created, then all are started and suspend themselves in their first call, then all are
resumed, each with a number that it returns. The exit status is 1 if one returns another number.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import greenlet as package
from greenlet import getcurrent, greenlet


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


def wait(suspend: Callable[[], object]) -> object:
    """What each runs. It keeps nothing: what grows is the greenlets alone."""
    return suspend()


def measure(count: int) -> Measurement:
    suspend = getcurrent().switch
    # The list has its full length before anything is measured.
    greenlets = [getcurrent()] * count
    # Everything that happens only once, the first time, happens now.
    first = greenlet(wait)
    first.switch(suspend)
    first.switch()
    before = Memory.now()

    times = [perf_counter()]
    for index in range(count):
        greenlets[index] = greenlet(wait)
    times.append(perf_counter())
    for each in greenlets:
        each.switch(suspend)
    times.append(perf_counter())
    suspended = Memory.now()

    times.append(perf_counter())
    wrong = sum(each.switch(number) != number for number, each in enumerate(greenlets))
    times.append(perf_counter())
    wrong += sum(not each.dead for each in greenlets)
    return Measurement(
        count,
        times[1] - times[0],
        times[2] - times[1],
        times[4] - times[3],
        wrong,
        (suspended.resident - before.resident) / count,
        (suspended.page_tables - before.page_tables) / count,
    )


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
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    measured = measure(options.count)
    if options.json:
        print(json.dumps(measured._asdict()))
    else:
        report(measured)
    return 1 if measured.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
