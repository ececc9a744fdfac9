#!/usr/bin/env python3
"""How much more two threads do than one on a free-threaded build, greenlets beside generators.

    python benchmarks/scaling.py --ours PYTHON [--published PYTHON] [--rounds N]

Two workloads that need nothing from one another should do twice as much on two cores; how near a
machine comes to that, plain generators show in the same run: `send` for a switch, and a generator
that is created and exhausted for a greenlet that is created, runs and finishes. Each round measures
all four, first in one thread and then in two, the published greenlet in a fresh process and then
ours in another. Of the rounds each figure is the best: other programs can only take away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from time import perf_counter
from typing import NamedTuple

LOOPS = 400_000
WORKLOADS = ("switch", "send", "greenlet", "generator")
PEERS = {"switch": "send", "greenlet": "generator"}


class Throughput(NamedTuple):
    """Operations a second, of all threads together."""

    alone: float
    together: float

    @property
    def scale(self) -> float:
        return self.together / self.alone


def prepare(name: str) -> Callable[[], int]:
    """Return a function for the calling thread that does its work and says how many operations."""
    import greenlet as package

    if name == "switch":
        main = package.getcurrent()

        def other() -> None:
            switch = main.switch
            while True:
                switch()

        there = package.greenlet(other)
        there.switch()
        switch = there.switch

        def switches() -> int:
            for _ in range(LOOPS // 2):
                switch()
            return LOOPS

        return switches

    if name == "send":

        def echo() -> Generator[None, None, None]:
            while True:
                yield

        generator = echo()
        next(generator)
        send = generator.send

        def sends() -> int:
            for _ in range(LOOPS):
                send(None)
            return LOOPS

        return sends

    if name == "greenlet":
        create = package.greenlet

        def nothing() -> None: ...

        def greenlets() -> int:
            for _ in range(LOOPS // 4):
                create(nothing).switch()
            return LOOPS // 4

        return greenlets

    def empty() -> Generator[None, None, None]:
        return
        yield

    def generators() -> int:
        for _ in range(LOOPS // 2):
            for _ in empty():
                pass
        return LOOPS // 2

    return generators


def throughput(name: str, threads: int) -> float:
    """Operations a second of threads that start together."""
    barrier = threading.Barrier(threads + 1)
    done: list[int] = []

    def work() -> None:
        run = prepare(name)
        run()  # warm
        barrier.wait()
        done.append(run())
        barrier.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = perf_counter()
    barrier.wait()
    seconds = perf_counter() - start
    for worker in workers:
        worker.join()
    return sum(done) / seconds


def measure() -> dict[str, list[float]]:
    return {name: [throughput(name, threads) for threads in (1, 2)] for name in WORKLOADS}


def measure_in(python: str) -> dict[str, list[float]]:
    # The published greenlet, when it is imported, may ask for the GIL.
    command = [python, "-X", "gil=0", __file__, "--measure"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, list[float]] = json.loads(done.stdout)
    return result


def best(rounds: list[dict[str, list[float]]], name: str) -> Throughput:
    return Throughput(*(max(each[name][index] for each in rounds) for index in range(2)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Two threads against one, free-threaded.")
    parser.add_argument("--ours", metavar="PYTHON", help="an interpreter that imports ours")
    parser.add_argument("--published", metavar="PYTHON", help="one that imports the published one")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return 0
    if options.ours is None:
        parser.error("--ours is needed")
    installations = {"ours": options.ours}
    if options.published:
        installations = {"published": options.published, **installations}
    rounds: dict[str, list[dict[str, list[float]]]] = {name: [] for name in installations}
    for _ in range(options.rounds):
        for name, python in installations.items():
            rounds[name].append(measure_in(python))
    print(f"{os.cpu_count()} cores; operations a second in one thread, in two, and the scale")
    for name, results in rounds.items():
        print(name)
        for workload in WORKLOADS:
            alone, together = best(results, workload)
            print(f"  {workload:10}{alone:14,.0f}{together:14,.0f}{together / alone:8.3f}", end="")
            if peer := PEERS.get(workload):
                relative = together / alone / best(results, peer).scale
                print(f"   {relative:.3f} of {peer}'s", end="")
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
