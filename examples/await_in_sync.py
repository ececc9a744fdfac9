#!/usr/bin/env python3
"""Synchronous code that awaits, under asyncio.

    python examples/await_in_sync.py

`await` works only directly inside `async def`, so code between an asyncio program and an asyncio
driver would have to be written a second time in async. Not with greenlets: `in_greenlet` runs the
synchronous code on a stack of its own, and `wait_for`, called from any depth inside, suspends that
whole stack until the event loop has the result. SQLAlchemy's asyncio engine rests on this idea.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class _Bridge(greenlet):
    """A greenlet whose parent is a coroutine that awaits what the greenlet sends it."""


async def in_greenlet(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a synchronous function that may call `wait_for`."""
    bridge = _Bridge(function)
    # The same context variables as the coroutine's, changes included; a new greenlet has none.
    bridge.gr_context = getcurrent().gr_context
    sent = bridge.switch(*args, **kwargs)
    while not bridge.dead:
        try:
            result = await sent
        except BaseException as error:  # cancellation too
            # Raised from `wait_for`, so that the synchronous code can handle it.
            sent = bridge.throw(error)
        else:
            sent = bridge.switch(result)
    # What a greenlet switches with at its end is the function's result.
    return cast(T, sent)


def wait_for(awaitable: Awaitable[T]) -> T:
    """`await`, for synchronous code that runs in `in_greenlet`."""
    bridge = getcurrent()
    if not isinstance(bridge, _Bridge) or bridge.parent is None:
        raise RuntimeError("wait_for() was called outside of in_greenlet()")
    return cast(T, bridge.parent.switch(awaitable))


# A program in three layers. The one in the middle is synchronous, and could be an old library.


async def query(key: int) -> int:
    """An asyncio driver: each query takes a while."""
    await asyncio.sleep(0.1)
    if key < 0:
        raise KeyError(key)
    return key * key


class Table:
    """Synchronous code: operators and plain calls, no `async` in sight."""

    def __getitem__(self, key: int) -> int:
        return wait_for(query(key))

    def get(self, key: int, default: int) -> int:
        try:
            return self[key]
        except KeyError:
            return default


def total(table: Table, keys: range) -> int:
    return sum(map(table.__getitem__, keys)) + table.get(-1, default=1000)


async def main() -> None:
    """An asyncio program: 100 of them at once."""
    begin = time.perf_counter()
    totals = await asyncio.gather(
        *(in_greenlet(total, Table(), range(first, first + 3)) for first in range(100))
    )
    assert totals == [sum(k * k for k in range(n, n + 3)) + 1000 for n in range(100)]
    seconds = time.perf_counter() - begin
    print(f"400 queries of 0.1 s, 4 in a row, 100 at once: {seconds:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
