"""Greenlets for profilers and debuggers to look at.

seen_greenlets.py           all kinds of them, once
seen_greenlets.py forever   again and again
seen_greenlets.py sleeping  one that sleeps in C code, while others are suspended
"""

from __future__ import annotations

import sys
import time

from greenlet import getcurrent, greenlet

SECONDS = 0.01
main = getcurrent()


def work() -> None:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        sum(range(1000))


def ping() -> None:
    for _ in range(3):
        ping_works()
        main.switch()


def ping_works() -> None:
    work()


def pong() -> None:
    for _ in range(3):
        main.switch()
        pong_works()


def pong_works() -> None:
    work()


def calls_c() -> None:
    list(map(called_by_c, range(3)))


def called_by_c(_: int) -> None:
    main.switch()
    work()


def waits() -> None:
    waits_deeper(3)


def waits_deeper(level: int) -> None:
    if level:
        waits_deeper(level - 1)
    else:
        main.switch()
        print("never")  # does not run


def fails() -> None:
    try:
        main.switch()
    finally:
        fails_deeper()


def fails_deeper() -> None:
    raise ValueError


def in_turns() -> None:
    family = [greenlet(run) for run in (ping, pong, calls_c, fails)]
    caught = False
    while family:
        for each in family:
            try:
                each.switch()
            except ValueError:
                caught = True  # after an exception
        family = [each for each in family if not each.dead]
    assert caught


def last() -> None:
    work()


def sleeps() -> None:
    sleeps_deeper()  # does not run


def sleeps_deeper() -> None:
    print("look", flush=True)  # does not run
    list(map(time.sleep, [60]))  # does not run


waiting = greenlet(waits)
waiting.switch()
if sys.argv[1:] == ["sleeping"]:
    greenlet(sleeps).switch()  # does not run
while sys.argv[1:] == ["forever"]:
    print("look", flush=True)  # does not run
    in_turns()  # does not run
in_turns()
last()
print("done")
