"""Recursion limits: how deep a greenlet may go, and that switching leaks no depth."""

from __future__ import annotations

import sys
from typing import Any

from behaviour import Greenlet, attempt, behaviour, pause, run, say, suspended


def room() -> int:
    """How many Python calls succeed before the limit."""

    def descend(depth: int) -> int:
        try:
            return descend(depth + 1)
        except RecursionError:
            return depth

    return descend(0)


def at_depth(depth: int, function: Any) -> Any:
    return function() if depth == 0 else at_depth(depth - 1, function)


def roughly(value: int) -> int:
    """Round to fifty, because the cost of a call differs a little between versions."""
    return round(value / 50) * 50


@behaviour
def a_greenlet_has_about_the_room_of_its_starter() -> None:
    say(roughly(room() - Greenlet(room).switch()))


@behaviour
def a_greenlet_started_deep_has_what_was_left() -> None:
    shallow = Greenlet(room).switch()
    say(roughly(shallow - at_depth(500, lambda: Greenlet(room).switch())))


@behaviour
def room_does_not_depend_on_who_resumes() -> None:
    def body() -> int:
        pause()
        return room()

    shallow = suspended(body)
    deep = at_depth(500, lambda: suspended(body))
    all_room = room()
    say(roughly(all_room - at_depth(300, shallow.switch)), roughly(all_room - deep.switch()))


@behaviour
def suspended_deep_greenlets_take_no_room() -> None:
    before = room()
    waiting = [Greenlet(lambda: at_depth(400, pause)) for _ in range(20)]
    for made in waiting:
        made.switch()
    say(room() - before)
    for made in waiting:
        made.switch()
    say(room() - before)


@behaviour
def thousands_of_switches_leak_no_depth() -> None:
    def body() -> None:
        while True:
            pause()

    before = room()
    made = suspended(body)
    for _ in range(3000):
        made.switch()
    say(room() - before)


@behaviour
def greenlets_that_die_by_an_exception_leak_no_depth() -> None:
    def body(depth: int) -> None:
        if depth:
            body(depth - 1)
        raise ValueError

    before = room()
    for _ in range(200):
        attempt(Greenlet(body).switch, 50)
    say(room() - before)


@behaviour
def greenlets_that_are_dropped_leak_no_depth() -> None:
    before = room()
    for _ in range(200):
        suspended(lambda: at_depth(50, pause))
    say(room() - before)


@behaviour
def endless_recursion_raises_in_the_greenlet() -> None:
    def body() -> str:
        def endless() -> None:
            endless()

        return attempt(endless).split(":")[0]

    say(Greenlet(body).switch())


@behaviour
def endless_recursion_that_escapes_raises_in_the_parent() -> None:
    def endless() -> None:
        endless()

    made = Greenlet(endless)
    say(attempt(made.switch).split(":")[0], made.dead)
    say(Greenlet(lambda: "next").switch())


@behaviour
def the_limit_holds_for_greenlets_that_wait() -> None:
    def body() -> int:
        pause()
        return room()

    made = suspended(body)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before - 300)
    try:
        here, there = room(), made.switch()
    finally:
        sys.setrecursionlimit(before)
    say(roughly(here - there), room() > here)


@behaviour
def the_limit_may_be_set_in_a_greenlet() -> None:
    before = sys.getrecursionlimit()
    all_room = room()

    def body() -> int:
        sys.setrecursionlimit(before + 300)
        return room()

    there = Greenlet(body).switch()
    here = room()
    sys.setrecursionlimit(before)
    say(roughly(there - all_room), roughly(here - all_room), room() - all_room)


@behaviour
def deep_recursion_with_a_high_limit_works() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20000)
    try:
        say(Greenlet(lambda: at_depth(15000, lambda: "bottom")).switch())
        made = Greenlet(lambda: at_depth(15000, lambda: pause("bottom")))
        say(made.switch(), made.switch("back"))
    finally:
        sys.setrecursionlimit(before)


@behaviour
def endless_nesting_of_greenlets_raises() -> None:
    def nest() -> Any:
        return Greenlet(nest).switch()

    say(attempt(nest).split(":")[0])


@behaviour
def endless_recursion_through_c_code_raises() -> None:
    def endless(value: int) -> Any:
        return list(map(endless, [value]))

    say(Greenlet(lambda: attempt(endless, 1).split(":")[0]).switch())


if __name__ == "__main__":
    run()
