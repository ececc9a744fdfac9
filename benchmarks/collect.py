#!/usr/bin/env python3
"""The time of gc.collect() with many suspended greenlets, ours against the published greenlet.

    python benchmarks/collect.py --ours PYTHON --published PYTHON [--count N] [--rounds N]

Each round measures the published one in a fresh process and then ours in another. A process takes
the time of a collection with no greenlet, with N suspended ones, and keeps the difference: what
they cost. The published greenlet visits frames from CPython 3.15 on only; before that it does less.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
from time import perf_counter
from typing import NamedTuple

DEPTH = 3  # frames of each suspended greenlet


class Measurement(NamedTuple):
    version: str
    empty_seconds: float
    full_seconds: float
    per_greenlet: float


def collection_seconds() -> float:
    """The best of five: collections take no less than they must."""
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        gc.collect()
        best = min(best, perf_counter() - start)
    return best


def measure(count: int) -> Measurement:
    # Only the measuring process needs a greenlet.
    import greenlet as package

    main = package.getcurrent()

    def wait(level: int) -> object:
        held = [level]
        return (held, main.switch() if level <= 1 else wait(level - 1))

    gc.disable()
    gc.collect()
    greenlets = [main] * count  # its full length before anything is measured
    empty = collection_seconds()
    for index in range(count):
        greenlets[index] = package.greenlet(wait)
        greenlets[index].switch(DEPTH)
    full = collection_seconds()
    for each in greenlets:
        each.switch()
    if not all(each.dead for each in greenlets):
        sys.exit("a greenlet has not finished")
    return Measurement(package.__version__, empty, full, (full - empty) / count)


def measure_in(python: str, count: int) -> Measurement:
    command = [python, __file__, "--measure", "--count", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measurement(*json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description="gc.collect() with many suspended greenlets.")
    parser.add_argument("--ours", metavar="PYTHON", help="an interpreter that imports ours")
    parser.add_argument("--published", metavar="PYTHON", help="one that imports the published one")
    parser.add_argument("--count", type=int, default=100_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.count)))
        return 0
    if not options.ours or not options.published:
        parser.error("--ours and --published are both needed")
    pairs = [
        (measure_in(options.published, options.count), measure_in(options.ours, options.count))
        for _ in range(options.rounds)
    ]
    ratios = sorted(ours.per_greenlet / published.per_greenlet for published, ours in pairs)
    print(f"gc.collect() with {options.count:,} suspended greenlets, {DEPTH} frames each")
    for name, measured in zip(("published", "ours"), zip(*pairs, strict=True), strict=True):
        full = statistics.median(each.full_seconds for each in measured)
        each_one = statistics.median(each.per_greenlet for each in measured)
        print(
            f"{name:<10}{measured[0].version:>8}{full * 1e3:>10.1f} ms"
            f"{each_one * 1e9:>8.0f} ns a greenlet"
        )
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
