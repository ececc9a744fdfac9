#!/usr/bin/env python3
"""Memory of idle greenlets that are frozen, against the published greenlet; and what a thaw takes.

    python benchmarks/freezing.py --ours PYTHON [--published PYTHON] [--count N] [--seconds S]
        [--what trivial frames receive awake]

Each measurement is a process. In it N greenlets wait, and are idle for S seconds. In these seconds
a few others start and end, which lets ours freeze. They wait in a function that does nothing else
(trivial), in the innermost of 20 Python frames (frames), or in gevent's recv() (receive). `awake`
switches to all of them in turn without a pause, so that nothing is frozen. Memory is the resident
memory and the page tables of the process, per greenlet, without what it had before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

FOLDER = Path(__file__).parent
ROWS = ("trivial", "frames", "receive", "awake")


def idle(seconds: float, pause: Callable[[float], object]) -> None:
    """Now and then a greenlet starts, waits, and ends."""
    from greenlet import getcurrent, greenlet

    suspend = getcurrent().switch
    end = monotonic() + seconds
    while monotonic() < end:
        other = greenlet(suspend)
        other.switch()
        other.switch()
        pause(0.01)


def frozen() -> int:
    import greenlet

    stacks = getattr(greenlet, "stacks", None)
    return stacks.statistics().frozen if stacks is not None else 0


def measure(what: str, count: int, seconds: float) -> dict[str, Any]:
    """Measure with the greenlet of this interpreter."""
    from greenlet import getcurrent, greenlet
    from suspended import RUNS, Memory, touch_memory

    run, suspend = RUNS[what], getcurrent().switch
    greenlets = [getcurrent()] * count
    touch_memory(count)
    before = Memory.now()
    for index in range(count):
        greenlets[index] = greenlet(run)
        greenlets[index].switch(suspend)
    begin = perf_counter()
    idle(seconds, sleep)
    after, idled, frozen_now = Memory.now(), perf_counter() - begin, frozen()
    begin = perf_counter()
    wrong = sum(each.switch(number) != number for number, each in enumerate(greenlets))
    return {
        "resident": (after.resident - before.resident) / count,
        "page_tables": (after.page_tables - before.page_tables) / count,
        "frozen": frozen_now / count,
        "wake": (perf_counter() - begin) / count,
        "idle": idled,
        "wrong": wrong,
    }


def measure_receiving(count: int, seconds: float) -> dict[str, Any]:
    import resource

    import gevent
    from gevent import socket
    from suspended import Memory, touch_memory

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard // 2 - 100)
    pairs = [socket.socketpair() for _ in range(count)]
    touch_memory(count)
    before = Memory.now()
    greenlets: list[Any] = [gevent.spawn(pair[0].recv, 1) for pair in pairs]
    gevent.sleep(0)
    idle_until = monotonic() + seconds
    while monotonic() < idle_until:
        gevent.spawn(int).join()
        gevent.sleep(0.01)
    after, frozen_now = Memory.now(), frozen()
    begin = perf_counter()
    for index, (_, sender) in enumerate(pairs):
        sender.send(bytes([index % 251]))
    gevent.joinall(greenlets)
    wrong = sum(each.value != bytes([index % 251]) for index, each in enumerate(greenlets))
    return {
        "resident": (after.resident - before.resident) / count,
        "page_tables": (after.page_tables - before.page_tables) / count,
        "frozen": frozen_now / count,
        "wake": (perf_counter() - begin) / count,
        "idle": seconds,
        "wrong": wrong,
    }


def measure_awake(count: int, seconds: float) -> dict[str, Any]:
    """Switch to all in turn, again and again; the time of a switch there and back is the `wake`."""
    from greenlet import getcurrent, greenlet

    suspend = getcurrent().switch

    def run() -> None:
        while True:
            suspend()

    greenlets = [greenlet(run) for _ in range(count)]
    best, rounds, end = float("inf"), 0, monotonic() + seconds
    while monotonic() < end or rounds < 3:
        begin = perf_counter()
        for each in greenlets:
            each.switch()
        if rounds:
            best = min(best, (perf_counter() - begin) / count)
        rounds += 1
    return {"resident": 0, "page_tables": 0, "frozen": frozen() / count, "wake": best, "wrong": 0}


def child(what: str, count: int, seconds: float) -> dict[str, Any]:
    if what == "receive":
        return measure_receiving(count, seconds)
    if what == "awake":
        return measure_awake(count, seconds)
    return measure(what, count, seconds)


def run(python: str, what: str, count: int, seconds: float) -> dict[str, Any] | None:
    """None if it cannot be measured there: gevent is not on every interpreter."""
    done = subprocess.run(
        [python, __file__, "--child", what, "--count", str(count), "--seconds", str(seconds)],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{what} cannot be measured with {python}: {done.stderr.strip().splitlines()[-1:]}")
        return None
    result: dict[str, Any] = json.loads(done.stdout)
    assert not result["wrong"], result
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Memory of frozen greenlets.")
    parser.add_argument("--ours")
    parser.add_argument("--published")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--what", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.count, options.seconds)))
        return 0
    sides = {"ours": options.ours, "published": options.published}
    print(f"{options.count:,} greenlets, idle for {options.seconds} s; bytes and µs each")
    print(f"{'':<10}{'':<11}{'resident':>9}{'tables':>8}{'sum':>8}{'frozen':>8}{'wake':>8}  ratio")
    for what in options.what:
        sums: dict[str, float] = {}
        for side, python in sides.items():
            found = run(python, what, options.count, options.seconds) if python else None
            if found is None:
                continue
            sums[side] = found["resident"] + found["page_tables"] or found["wake"]
            ratio = f"{sums['ours'] / sums[side]:.2f}" if side == "published" and sums else ""
            print(
                f"{what:<10}{side:<11}{found['resident']:>9,.0f}{found['page_tables']:>8,.0f}"
                f"{found['resident'] + found['page_tables']:>8,.0f}{found['frozen']:>8.0%}"
                f"{found['wake'] * 1e6:>8.2f}  {ratio}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
