#!/usr/bin/env python3
"""What is timed: one small loop for each benchmark, run under pyperf on the `greenlet` at hand.

    python benchmarks/workloads.py [pyperf options] [NAME ...]

compare.py runs this for two installations in turn. Each function repeats its work `loops` times
and returns the seconds that took. The cost of the loop and of the Python call to `switch` is part
of every figure, on both sides; `call` tells how much that is.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import NamedTuple

import pyperf
from greenlet import getcurrent, greenlet


def call(loops: int) -> float:
    """For scale: the loop of `switch` around a C method that does nothing."""
    method = "".isascii
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        method()
    return perf_counter() - begin


def switch(loops: int) -> float:
    """Two greenlets that do nothing but switch to each other, without a value."""
    main = getcurrent()

    def other() -> None:
        switch = main.switch
        while True:
            switch()

    there = greenlet(other)
    there.switch()  # started: from here on both wait in switch()
    switch = there.switch
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        switch()
    return perf_counter() - begin


def switch_value(loops: int) -> float:
    """The same, and one object goes to and fro."""
    main = getcurrent()

    def other(value: object) -> None:
        switch = main.switch
        while True:
            value = switch(value)

    there = greenlet(other)
    value = there.switch("value")
    switch = there.switch
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        value = switch(value)
    seconds = perf_counter() - begin
    assert value == "value"
    return seconds


def create(loops: int) -> float:
    """Create a greenlet, run a function in it that returns at once, drop it."""

    def function() -> None:
        pass

    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        greenlet(function).switch()
    return perf_counter() - begin


def deep(depth: int, loops: int) -> float:
    """`switch` when both greenlets are `depth` C calls deep."""
    main = getcurrent()

    def other() -> None:
        switch = main.switch
        while True:
            switch()

    # Started from up here: both stacks begin at the same place, and then each grows on its own. An
    # implementation that keeps both in one memory has to copy what overlaps, at every switch.
    there = greenlet(partial(descend, depth, other))
    there.switch()

    def here() -> float:
        switch = there.switch
        repeat = itertools.repeat(None, loops)
        begin = perf_counter()
        for _ in repeat:
            switch()
        return perf_counter() - begin

    return descend(depth, here)


def descend(depth: int, bottom: Callable[[], float | None]) -> float:
    """Call `bottom` below `depth` calls that go through C: `next` and `map` between each two."""
    if depth == 0:
        return bottom() or 0.0
    return next(map(descend, (depth - 1,), (bottom,)))


class Workload(NamedTuple):
    run: Callable[[int], float]
    per_loop: int  # how often one loop does what is counted; a round trip is two switches


WORKLOADS = {
    "call": Workload(call, 1),
    "switch": Workload(switch, 2),
    "switch_value": Workload(switch_value, 2),
    "create": Workload(create, 1),
    "deep_1": Workload(partial(deep, 1), 2),
    "deep_10": Workload(partial(deep, 10), 2),
    "deep_50": Workload(partial(deep, 50), 2),
}


def pass_names_on(command: list[str], options: argparse.Namespace) -> None:
    """pyperf runs this program again as its worker, for the same benchmarks."""
    command.extend(options.names)


def main() -> None:
    runner = pyperf.Runner(add_cmdline_args=pass_names_on)
    runner.argparser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    options = runner.parse_args()
    for name in options.names or WORKLOADS:
        workload = WORKLOADS[name]
        runner.bench_time_func(name, workload.run, inner_loops=workload.per_loop)


if __name__ == "__main__":
    main()
