"""A program with greenlets of all kinds, for tests that look at it from outside.

It writes what it knows of itself, as JSON, into a file, and then stays as it is: in `how` it says
in which way.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from greenlet import getcurrent, greenlet, inspect

keep: list[greenlet] = []
started = threading.Event()


def wait() -> None:
    """Go back to where this greenlet was started."""
    parent = getcurrent().parent
    assert parent is not None
    parent.switch()


def recursive(levels: int) -> None:
    if levels:
        recursive(levels - 1)
    else:
        wait()


def generator() -> Iterator[int]:
    for number in range(3):
        wait()
        yield number


def uses_a_generator() -> None:
    for _ in generator():
        pass


def key(number: int) -> int:
    wait()
    return number


def uses_c() -> None:
    sorted([3, 1, 2], key=key)


def größe() -> None:
    wait()


def nested(levels: int) -> None:
    child = greenlet(nested if levels else recursive)
    keep.append(child)
    child.switch(levels - 1 if levels else 2)
    parent = getcurrent().parent
    while parent is not None and parent.parent is not None:
        parent = parent.parent
    assert parent is not None
    parent.switch()


class Worker(greenlet):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def run(self) -> None:
        wait()


class Callables:
    def method(self) -> None:
        wait()

    @classmethod
    def of_class(cls) -> None:
        wait()

    def __call__(self) -> None:
        wait()


def start(run: Callable[..., Any], *args: object) -> greenlet:
    one = greenlet(run)
    keep.append(one)
    one.switch(*args)
    return one


def build() -> None:
    for _ in range(3):
        start(recursive, 4)
    start(uses_a_generator)
    start(uses_c)
    start(größe)
    start(Callables().method)
    start(Callables.of_class)
    start(Callables())
    start(functools.partial(recursive, 1))
    start(lambda: wait())
    start(nested, 2)
    inspect.set_name(start(wait), "the first, ďalší, 次")
    worker = Worker("from its attribute")
    keep.append(worker)
    worker.switch()
    inspect.track_origin(2)
    start(wait)
    inspect.track_origin(0)


def work() -> None:
    build()
    started.set()
    time.sleep(1000)


def describe(path: str) -> None:
    with open(path + ".part", "w") as file:
        json.dump(inspect.to_json(), file)
    os.rename(path + ".part", path)


def main(path: str, how: str) -> None:
    build()
    own = [*keep]
    threading.Thread(target=work, name="the second thread", daemon=True).start()
    started.wait()
    if how == "in a greenlet":
        start(describe, path)
        start(time.sleep, 1000)
    describe(path)
    if how == "sleeps":
        time.sleep(1000)
    elif how == "in C":
        ctypes.CDLL(None).pause()
    elif how == "runs":
        while True:
            time.sleep(0.001)
    elif how == "aborts":
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        os.abort()
    elif how == "ends":
        input()
        for one in own:
            while not one.dead:
                one.switch()
        print("went on")


if __name__ == "__main__":
    main(*sys.argv[1:])
