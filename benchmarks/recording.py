#!/usr/bin/env python3
"""What a switch takes with and without a recording of greenlet.timeline, in nanoseconds.

    python benchmarks/recording.py [--rounds 200] [--switches 10000]

Both are measured in turns, in many short rounds, and the fastest round of each counts: other
programs can only make a round slower. A switch is one way of a round trip between two greenlets,
with the loop in Python around it. The clock is what the recorder reads for each switch.
"""

from __future__ import annotations

import argparse
import platform
import sys
import sysconfig
import time
from collections.abc import Callable

from greenlet import getcurrent, greenlet, timeline


def answer() -> None:
    switch = getcurrent().parent.switch  # type: ignore[union-attr]
    while True:
        switch()


def finish() -> None:
    pass


def switches(count: int) -> Callable[[], float]:
    other = greenlet(answer)
    other.switch()

    def once() -> float:
        switch = other.switch
        begin = time.perf_counter_ns()
        for _ in range(count // 2):
            switch()
        return (time.perf_counter_ns() - begin) / count

    return once


def lives(count: int) -> Callable[[], float]:
    """A greenlet that is made, runs and finishes; two switches, and a name to note."""

    def once() -> float:
        begin = time.perf_counter_ns()
        for _ in range(count // 10):
            greenlet(finish).switch()
        return (time.perf_counter_ns() - begin) / (count // 10)

    return once


def clock(count: int) -> float:
    """How long the clock takes, read from Python, without the loop around it."""
    read = time.monotonic_ns
    with_it = without = float("inf")
    for _ in range(50):
        begin = time.perf_counter_ns()
        for _ in range(count):
            read()
        middle = time.perf_counter_ns()
        for _ in range(count):
            pass
        without = min(without, time.perf_counter_ns() - middle)
        with_it = min(with_it, middle - begin)
    return (with_it - without) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--switches", type=int, default=10_000, help="in each round")
    options = parser.parse_args()
    free_threaded = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    print(f"{platform.python_implementation()} {sys.version.split()[0]}{free_threaded}")
    for name, measure in (
        ("switch", switches(options.switches)),
        ("life", lives(options.switches)),
    ):
        without = recorded = counted = float("inf")
        for _ in range(options.rounds):
            without = min(without, measure())
            timeline.start(limit=4 * options.switches)
            recorded = min(recorded, measure())
            timeline._discard()
            timeline.start(limit=1)
            measure()
            counted = min(counted, measure())
            timeline._discard()
        print(
            f"{name}: {without:.1f} ns, recorded {recorded:.1f} ns (+{recorded - without:.1f}),"
            f" beyond the limit {counted:.1f} ns (+{counted - without:.1f})"
        )
    print(f"clock, read from Python: {clock(options.switches):.1f} ns")


if __name__ == "__main__":
    main()
