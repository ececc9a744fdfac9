"""Two greenlets that allocate in turns, for memory profilers: to whom is each megabyte counted?

Prints the functions that allocate. Each switch leaves one that is about to allocate for another, by
all ways to switch: from nested calls and generators, by an exception, and by the end of a greenlet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from greenlet import GreenletExit, getcurrent, greenlet

MEGABYTE = 1_000_000
kept: list[bytearray] = []
main = getcurrent()


def allocate_before_and_after() -> None:
    kept.append(bytearray(5 * MEGABYTE))
    main.switch()
    kept.append(bytearray(3 * MEGABYTE))


def wait() -> None:
    main.switch()


def allocate_after_a_nested_wait() -> None:
    wait()
    kept.append(bytearray(4 * MEGABYTE))


def generate_and_allocate() -> Iterator[None]:
    for _ in range(3):
        kept.append(bytearray(2 * MEGABYTE))
        main.switch()
        yield


def allocate_when_interrupted() -> None:
    try:
        main.switch()
    except ValueError:
        kept.append(bytearray(6 * MEGABYTE))


def allocate_at_the_end() -> None:
    try:
        main.switch()
    finally:
        kept.append(bytearray(7 * MEGABYTE))


def first() -> None:
    allocate_before_and_after()
    for _ in generate_and_allocate():
        pass
    allocate_when_interrupted()
    allocate_before_and_after()


def second() -> None:
    allocate_after_a_nested_wait()
    allocate_before_and_after()
    allocate_when_interrupted()
    allocate_at_the_end()


def switch_in_turns() -> None:
    """Drive both; the exceptions go to where they wait to be interrupted."""
    one, two = greenlet(first), greenlet(second)
    for _ in range(3):
        one.switch()
        two.switch()
    one.switch()
    two.throw(ValueError)
    one.switch()
    one.throw(ValueError)
    two.throw(GreenletExit)
    one.switch()
    assert one.dead and two.dead


switch_in_turns()
ALLOCATING: tuple[Callable[[], object], ...] = (
    allocate_before_and_after,
    allocate_after_a_nested_wait,
    generate_and_allocate,
    allocate_when_interrupted,
    allocate_at_the_end,
)
print(*(function.__name__ for function in ALLOCATING))
print(sum(map(len, kept)))
