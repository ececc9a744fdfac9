#!/usr/bin/env python3
"""gevent on the greenlet at hand: prints the seconds of one hand-over, in two programs.

queue: two greenlets send one object to and fro through two queues. sleep: a thousand greenlets let
each other run with sleep(0).
"""

import json
from time import perf_counter

import gevent
from gevent.queue import Queue

HAND_OVERS = 20_000
SLEEPERS = 1000
SLEEPS = 30
REPEATS = 5


def queue() -> float:
    """Seconds of one put() and the get() that it wakes."""
    there: Queue[object] = Queue()
    back: Queue[object] = Queue()

    def answer() -> None:
        for _ in range(HAND_OVERS):
            back.put(there.get())

    def ask() -> None:
        for _ in range(HAND_OVERS):
            there.put(None)
            back.get()

    begin = perf_counter()
    gevent.joinall([gevent.spawn(answer), gevent.spawn(ask)], raise_error=True)
    return (perf_counter() - begin) / (2 * HAND_OVERS)


def sleep() -> float:
    """Seconds of one sleep(0) among a thousand."""

    def yield_often() -> None:
        for _ in range(SLEEPS):
            gevent.sleep(0)

    begin = perf_counter()
    gevent.joinall([gevent.spawn(yield_often) for _ in range(SLEEPERS)], raise_error=True)
    return (perf_counter() - begin) / (SLEEPERS * SLEEPS)


if __name__ == "__main__":
    best = {
        "gevent_queue": min(queue() for _ in range(REPEATS)),
        "gevent_sleep": min(sleep() for _ in range(REPEATS)),
    }
    print(json.dumps(best))
