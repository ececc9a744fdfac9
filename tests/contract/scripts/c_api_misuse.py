"""Wrong arguments to the C API that crash the published greenlet, or that it accepts."""

from __future__ import annotations

from behaviour import (
    Deviation,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    getcurrent,
    listening,
    run,
    say,
    suspended,
)
from scripts.c_api import NULL, set_parent, switch, throw


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: bad argument type for built-in operation",),
            published=("('received', [1, 2])",),
        ),
    )
)
def switch_with_arguments_that_are_a_list() -> None:
    say(attempt(switch, listening(), [1, 2], NULL))


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: bad argument type for built-in operation",),
            published=("<ends with SIGSEGV>",),
        ),
    )
)
def switch_with_arguments_that_are_a_number() -> None:
    say(attempt(switch, Greenlet(arguments), 5, NULL))


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: bad argument type for built-in operation False",),
            published=("((1,), {}) True",),
        ),
    )
)
def switch_with_keywords_that_are_a_list() -> None:
    made = Greenlet(arguments)
    say(attempt(switch, made, (1,), [1]), made.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: bad argument type for built-in operation False",),
            published=("<ends with SIGSEGV>",),
        ),
    )
)
def throw_without_a_type() -> None:
    made = Greenlet(arguments)
    say(attempt(throw, made, NULL, NULL, NULL), made.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: bad argument type for built-in operation False",),
            published=("<ends with SIGSEGV>",),
        ),
    )
)
def throw_without_a_type_into_a_suspended_greenlet() -> None:
    made = suspended()
    say(attempt(throw, made, NULL, NULL, NULL), made.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="Every entry of the C API takes a wrong argument with an exception.",
            ours=("raised TypeError: GreenletChecker: Expected any type of greenlet, not NULL",),
            published=("<ends with SIGSEGV>",),
        ),
    )
)
def set_parent_without_a_child() -> None:
    say(attempt(set_parent, NULL, getcurrent()))


if __name__ == "__main__":
    run()
