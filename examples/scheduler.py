#!/usr/bin/env python3
"""A small cooperative scheduler: spawn, sleep, queue, join.

    python examples/scheduler.py

Tasks are greenlets that run until they wait. All waiting goes through one greenlet, the scheduler,
which switches to whatever can go on. Tasks that never run at the same time need no locks.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class DeadlockError(Exception):
    """Every task waits for another one."""


class Scheduler:
    """Switches to the tasks that can go on; sleeps when none can."""

    def __init__(self) -> None:
        self._greenlet = greenlet(self._loop)
        self._ready: deque[greenlet] = deque()
        self._order = itertools.count()  # of two that wake at the same time, the first goes first
        self._asleep: list[tuple[float, int, greenlet]] = []

    def spawn(self, function: Callable[..., T], *args: object) -> Task[T]:
        """Call `function(*args)` as a task, soon."""
        return Task(self, function, args)

    def sleep(self, seconds: float) -> None:
        """Let the others run for so long."""
        wake = time.monotonic() + seconds
        heapq.heappush(self._asleep, (wake, next(self._order), getcurrent()))
        self.wait()

    def wait(self) -> None:
        """Let the others run until somebody hands this greenlet to `wake`."""
        self._greenlet.switch()

    def wake(self, waiting: greenlet) -> None:
        self._ready.append(waiting)

    def _loop(self) -> None:
        while self._ready or self._asleep:
            if not self._ready:
                time.sleep(max(0.0, self._asleep[0][0] - time.monotonic()))
            while self._asleep and self._asleep[0][0] <= time.monotonic():
                self._ready.append(heapq.heappop(self._asleep)[2])
            if self._ready:
                self._ready.popleft().switch()
        # Ends this greenlet: the exception is raised in its parent, the one that made it.
        raise DeadlockError


class Task(Generic[T]):
    """A function call that goes on by itself, and that others can join."""

    def __init__(
        self, scheduler: Scheduler, function: Callable[..., T], args: tuple[object, ...]
    ) -> None:
        self._scheduler = scheduler
        self._function = function
        self._args = args
        self._joining: list[greenlet] = []
        self._result: T
        self._error: Exception | None = None
        self.done = False
        # A child of the scheduler: when the task ends, the scheduler goes on.
        scheduler.wake(greenlet(self._run, scheduler._greenlet))

    def _run(self) -> None:
        try:
            self._result = self._function(*self._args)
        except Exception as error:
            self._error = error
        self.done = True
        for waiting in self._joining:
            self._scheduler.wake(waiting)

    def join(self) -> T:
        """Wait until the task has ended; return what it returned, or raise what it raised."""
        if not self.done:
            self._joining.append(getcurrent())
            self._scheduler.wait()
        if self._error is not None:
            raise self._error
        return self._result


class Queue(Generic[T]):
    """Items in order; `put` waits while it is full, `get` while it is empty."""

    def __init__(self, scheduler: Scheduler, size: int) -> None:
        self._scheduler = scheduler
        self._size = size
        self._items: deque[T] = deque()
        self._getting: deque[greenlet] = deque()
        self._putting: deque[greenlet] = deque()

    def put(self, item: T) -> None:
        while len(self._items) >= self._size:
            self._putting.append(getcurrent())
            self._scheduler.wait()
        self._items.append(item)
        if self._getting:
            self._scheduler.wake(self._getting.popleft())

    def get(self) -> T:
        while not self._items:
            self._getting.append(getcurrent())
            self._scheduler.wait()
        item = self._items.popleft()
        if self._putting:
            self._scheduler.wake(self._putting.popleft())
        return item


def main() -> None:
    scheduler = Scheduler()
    queue: Queue[int | None] = Queue(scheduler, size=2)
    begin = time.monotonic()

    def say(*words: object) -> None:
        print(f"{time.monotonic() - begin:4.1f} s ", *words)

    def produce() -> str:
        for number in range(1, 6):
            scheduler.sleep(0.1)
            queue.put(number)
            say("put", number)
        queue.put(None)
        return "produced 5"

    def consume() -> int:
        total = 0
        while (number := queue.get()) is not None:
            say("    got", number)
            total += number
            scheduler.sleep(0.2)  # slower than the producer: the queue fills, and it has to wait
        return total

    def fail() -> Any:
        scheduler.sleep(0.15)
        raise ValueError("on purpose")

    producer, consumer, failing = map(scheduler.spawn, (produce, consume, fail))
    # The greenlet that is not a task can join too; the tasks run meanwhile.
    try:
        failing.join()
    except ValueError as error:
        say("        failed", error)
    say("        total", consumer.join(), producer.join())


if __name__ == "__main__":
    main()
