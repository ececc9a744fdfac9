#!/usr/bin/env python3
"""How much more two threads do than one on a free-threaded build, greenlets beside generators.

    python benchmarks/scaling.py --ours PYTHON [--published PYTHON] [--processes N] [--rounds N]

Two workloads that need nothing from one another should do twice as much on two cores; how near a
machine comes to that, plain generators show in the same run: `send` for a switch, and a generator
that is created and exhausted for a greenlet that is created, runs and finishes. Processes with the
published greenlet and with ours take turns. In each, rounds of short measurements follow one
another: every workload in one thread and in two, so that what disturbs the machine disturbs all of
them. Each figure is the best of all rounds: other programs can only take away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

LOOPS = 1_000_000  # of a measurement; some 50 ms
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
            for _ in range(LOOPS // 8):
                create(nothing).switch()
            return LOOPS // 8

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


class Span(NamedTuple):
    """What one thread did in a measurement, and when, on its own clock: one that only watches
    would be woken late where both cores are busy.
    """

    operations: int
    begin: float
    end: float


class Workers:
    """Two threads that do the same work of their own, at the same time or one of them alone."""

    def __init__(self) -> None:
        self._start = {1: threading.Barrier(1), 2: threading.Barrier(2)}
        self._next: tuple[str, int] | None = None
        self._turns = [threading.Semaphore(0), threading.Semaphore(0)]
        self._ended = threading.Semaphore(0)
        self._spans = [Span(0, 0, 0)] * 2
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in (0, 1)]
        for thread in self._threads:
            thread.start()

    def throughput(self, name: str, threads: int) -> float:
        """Operations a second of so many threads together."""
        self._next = name, threads
        for turn in self._turns[:threads]:
            turn.release()
        for _ in range(threads):
            self._ended.acquire()
        spans = self._spans[:threads]
        seconds = max(span.end for span in spans) - min(span.begin for span in spans)
        return sum(span.operations for span in spans) / seconds

    def close(self) -> None:
        self._next = None
        for turn, thread in zip(self._turns, self._threads, strict=True):
            turn.release()
            thread.join()

    def _work(self, number: int) -> None:
        works = {name: prepare(name) for name in WORKLOADS}
        for work in works.values():
            work()  # warm
        while True:
            self._turns[number].acquire()
            if self._next is None:
                return
            name, threads = self._next
            self._start[threads].wait()
            begin = perf_counter()
            operations = works[name]()
            self._spans[number] = Span(operations, begin, perf_counter())
            self._ended.release()


def measure(rounds: int) -> dict[str, list[float]]:
    """The best of each workload in one thread and in two."""
    workers = Workers()
    best = {name: [0.0, 0.0] for name in WORKLOADS}
    for _ in range(rounds):
        for name in WORKLOADS:
            for threads in (1, 2):
                now = workers.throughput(name, threads)
                best[name][threads - 1] = max(best[name][threads - 1], now)
    workers.close()
    return best


def measure_in(python: str, rounds: int) -> dict[str, list[float]]:
    # The published greenlet, when it is imported, may ask for the GIL.
    command = [python, "-X", "gil=0", __file__, "--measure", "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, list[float]] = json.loads(done.stdout)
    return result


def best(processes: list[dict[str, list[float]]], name: str) -> Throughput:
    return Throughput(*(max(each[name][index] for each in processes) for index in range(2)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Two threads against one, free-threaded.")
    parser.add_argument("--ours", metavar="PYTHON", help="an interpreter that imports ours")
    parser.add_argument("--published", metavar="PYTHON", help="one that imports the published one")
    parser.add_argument("--processes", type=int, default=5, metavar="N", help="of each")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="in each process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep what is measured")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.rounds)))
        return 0
    if options.ours is None:
        parser.error("--ours is needed")
    installations = {"ours": options.ours}
    if options.published:
        installations = {"published": options.published, **installations}
    results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in installations}
    for _ in range(options.processes):
        for name, python in installations.items():
            results[name].append(measure_in(python, options.rounds))
    print(f"{os.cpu_count()} cores; operations a second in one thread, in two, and the scale")
    for name, processes in results.items():
        print(name)
        for workload in WORKLOADS:
            alone, together = best(processes, workload)
            print(f"  {workload:10}{alone:14,.0f}{together:14,.0f}{together / alone:8.3f}", end="")
            if peer := PEERS.get(workload):
                relative = together / alone / best(processes, peer).scale
                print(f"   {relative:.3f} of {peer}'s", end="")
            print()
    if options.json:
        kept = {
            name: {workload: best(processes, workload)._asdict() for workload in WORKLOADS}
            for name, processes in results.items()
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
