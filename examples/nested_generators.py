#!/usr/bin/env python3
"""Generators that yield from nested calls, and from inside functions that know nothing of it.

    python examples/nested_generators.py

A generator can yield only from its own body: each call in between has to be a generator too, and
pass everything on with `yield from`. A greenlet suspends all the calls that it is in at once,
whoever wrote them and in whatever language. So any function that hands its results to a callback
can be turned inside out, into an iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from typing import Generic, TypeVar, cast

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class Values(Iterator[T], Generic[T]):
    """The values that `produce(emit)` gives to `emit`, one at a time, as they are asked for.

    If they are dropped before the end, `GreenletExit` is raised in `produce`, where it waits in
    `emit`: its `finally` blocks run, as a generator's do.
    """

    def __init__(self, produce: Callable[[Callable[[T], None]], object]) -> None:
        # Nothing that the greenlet holds refers back to this object: so dropping it is enough.
        self._producer = greenlet(partial(produce, _emit))

    def __next__(self) -> T:
        producer = self._producer
        if not producer.dead:
            # Its parent is whoever asks. Values go there, and so does an exception in `produce`.
            producer.parent = getcurrent()
            value = producer.switch()
            # A producer that has just ended switched with its result, which is not a value.
            if not producer.dead:
                return cast(T, value)
        raise StopIteration


def _emit(value: object) -> None:
    consumer = getcurrent().parent
    assert consumer is not None  # only a main greenlet has no parent
    consumer.switch(value)


def hanoi(disks: int, emit: Callable[[str], None], source: str = "A", target: str = "C") -> None:
    """The moves of the Towers of Hanoi, by plain recursion, emitted where they happen."""
    if disks:
        spare = ({"A", "B", "C"} - {source, target}).pop()
        hanoi(disks - 1, emit, source, spare)
        emit(f"{source}{target}")
        hanoi(disks - 1, emit, spare, target)


def tags(document: str) -> Values[str]:
    """The tags of an HTML document: the parser pushes them, we pull."""

    def parse(emit: Callable[[str], None]) -> None:
        class Parser(HTMLParser):
            def handle_starttag(self, tag: str, attrs: object) -> None:
                emit(tag)

        Parser().feed(document)

    return Values(parse)


def comparisons(items: list[int]) -> Values[tuple[int, int]]:
    """Every pair that `list.sort` compares: suspended inside the C code of the sort itself."""

    def sort(emit: Callable[[tuple[int, int]], None]) -> None:
        class Item(int):
            def __lt__(self, other: int) -> bool:
                emit((int(self), int(other)))
                return int(self) < int(other)

        sorted(Item(item) for item in items)

    return Values(sort)


def main() -> None:
    moves: Values[str] = Values(lambda emit: hanoi(3, emit))
    print("moves:      ", " ".join(moves))
    print("tags:       ", " ".join(tags("<html><body><p>One<p>Two <b>bold</b></body></html>")))
    print("comparisons:", " ".join(f"{a}<{b}" for a, b in comparisons([3, 1, 2])))

    # Values are made on demand: of the 2**100 - 1 moves only these come into being.
    endless: Values[str] = Values(lambda emit: hanoi(100, emit))
    print("on demand:  ", " ".join(next(endless) for _ in range(8)), "...")


if __name__ == "__main__":
    main()
