"""`throw`: its arguments, the checks and their order, and the traceback that it carries."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from behaviour import (
    Deviation,
    Greenlet,
    GreenletExit,
    arguments,
    attempt,
    behaviour,
    dead,
    functions_of,
    getcurrent,
    listening,
    pause,
    root,
    run,
    say,
    suspended,
)


class Pair(Exception):
    """Needs two arguments."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__(first, second)


class Unmakable(Exception):
    """Cannot be made."""

    def __init__(self, *args: Any) -> None:
        raise RuntimeError("constructor")


def a_traceback() -> TracebackType:
    def origin() -> None:
        raise OSError("origin")

    try:
        origin()
    except OSError as error:
        assert error.__traceback__ is not None
        return error.__traceback__
    raise AssertionError


def into_each_state(*args: Any, **keywords: Any) -> None:
    """Throw at a suspended, an unstarted, a dead and the running greenlet; tell each outcome."""
    waiting = listening()
    say("suspended:", attempt(waiting.throw, *args, **keywords), waiting.dead)
    unstarted = Greenlet(arguments)
    say("unstarted:", attempt(unstarted.throw, *args, **keywords), unstarted.dead)
    gone = dead()
    say("dead:", attempt(gone.throw, *args, **keywords), gone.dead)
    say("running:", attempt(getcurrent().throw, *args, **keywords))


@behaviour
def without_arguments_it_throws_greenlet_exit() -> None:
    into_each_state()


@behaviour
def a_class() -> None:
    into_each_state(ValueError)


@behaviour
def a_class_and_none() -> None:
    into_each_state(ValueError, None, None)


@behaviour
def a_class_and_a_value() -> None:
    into_each_state(ValueError, 1)


@behaviour
def a_class_and_a_tuple() -> None:
    into_each_state(ValueError, (1, 2))


@behaviour
def a_class_and_an_empty_tuple() -> None:
    into_each_state(ValueError, ())


@behaviour
def a_class_and_its_instance() -> None:
    into_each_state(ValueError, ValueError("instance"))


@behaviour
def a_class_and_an_instance_of_a_subclass() -> None:
    into_each_state(Exception, ValueError("instance"))


@behaviour
def a_class_and_an_instance_of_another_class() -> None:
    into_each_state(KeyError, ValueError("instance"))


@behaviour
def an_instance() -> None:
    into_each_state(ValueError("instance"))


@behaviour
def an_instance_and_none() -> None:
    into_each_state(ValueError("instance"), None)


@behaviour
def an_instance_and_a_value() -> None:
    into_each_state(ValueError("instance"), 1)


@behaviour
def an_instance_and_itself() -> None:
    error = ValueError("instance")
    into_each_state(error, error)


@behaviour
def greenlet_exit_and_a_value() -> None:
    into_each_state(GreenletExit, 5)


@behaviour
def an_instance_of_greenlet_exit() -> None:
    into_each_state(GreenletExit("mine"))


@behaviour
def a_subclass_of_greenlet_exit() -> None:
    into_each_state(type("Quiet", (GreenletExit,), {}))


@behaviour
def system_exit_and_keyboard_interrupt() -> None:
    into_each_state(SystemExit, 3)
    into_each_state(KeyboardInterrupt)


@behaviour
def something_that_is_no_exception() -> None:
    for value in (1, "text", None, object(), int, (ValueError, KeyError), arguments):
        into_each_state(value)


@behaviour
def none_for_all_three() -> None:
    into_each_state(None, None, None)


@behaviour
def a_third_argument_that_is_no_traceback() -> None:
    into_each_state(ValueError, 1, 2)
    into_each_state(ValueError, None, "text")


@behaviour
def the_traceback_is_checked_first() -> None:
    into_each_state(1, 1, 1)
    into_each_state(ValueError("instance"), 1, 2)


@behaviour
def four_arguments() -> None:
    into_each_state(ValueError, 1, None, 4)


@behaviour
def keywords() -> None:
    for name in ("typ", "type", "val", "value", "tb"):
        outcome = attempt(Greenlet(arguments).throw, **{name: ValueError})
        say(name, outcome.replace("greenlet.throw()", "throw()"))


@behaviour
def a_class_that_needs_more_arguments_fails_in_the_target() -> None:
    say(attempt(Greenlet(arguments).throw, Pair, 1).split(".__init__")[-1])
    into_each_state(Pair, (1, 2))


@behaviour
def a_class_that_cannot_be_made_fails_in_the_target() -> None:
    into_each_state(Unmakable)
    into_each_state(Unmakable, 1)


@behaviour
def throw_needs_a_greenlet() -> None:
    say(attempt(Greenlet.throw), attempt(Greenlet.throw, 1))


@behaviour
def it_returns_what_the_target_sends_back() -> None:
    def body() -> Any:
        try:
            pause()
        except ValueError:
            return pause("one", "two")

    made = suspended(body)
    say(made.throw(ValueError), made.switch("end"))


@behaviour
def the_target_is_current_when_it_is_thrown() -> None:
    def body() -> Any:
        try:
            pause()
        except ValueError:
            return getcurrent() is made

    made = suspended(body)
    say(made.throw(ValueError))


@behaviour
def the_instance_thrown_is_the_instance_raised() -> None:
    error = ValueError("mine")

    def body() -> Any:
        try:
            pause()
        except ValueError as caught:
            return caught is error

    say(suspended(body).throw(error))
    try:
        Greenlet(arguments).throw(error)
    except ValueError as caught:
        say(caught is error)


@behaviour
def the_targets_frames_are_in_the_traceback() -> None:
    def outer() -> None:
        inner()

    def inner() -> None:
        root().switch()

    try:
        suspended(outer).throw(ValueError("thrown"))
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_given_traceback_is_kept_below() -> None:
    def body() -> None:
        root().switch()

    try:
        suspended(body).throw(ValueError, "thrown", a_traceback())
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_given_traceback_is_kept_by_an_unstarted_target() -> None:
    try:
        Greenlet(arguments).throw(ValueError, "thrown", a_traceback())
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_given_traceback_is_kept_by_a_dead_target() -> None:
    try:
        dead().throw(ValueError, "thrown", a_traceback())
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_given_traceback_is_kept_by_the_running_target() -> None:
    try:
        getcurrent().throw(ValueError, "thrown", a_traceback())
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_given_traceback_goes_with_an_instance() -> None:
    try:
        Greenlet(arguments).throw(ValueError("thrown"), None, a_traceback())
    except ValueError as error:
        say(functions_of(error))


@behaviour
def a_traceback_of_none_is_no_traceback() -> None:
    say(attempt(Greenlet(arguments).throw, ValueError, 1, None))


@behaviour(
    deviations=(
        Deviation(
            reason="A thrown instance keeps its traceback, as with raise.",
            ours=("['the_instances_own_traceback', 'a_traceback', 'origin']",),
            published=("['the_instances_own_traceback']",),
            on=("3.11", "3.12", "3.13"),
        ),
    )
)
def the_instances_own_traceback() -> None:
    error = ValueError("thrown").with_traceback(a_traceback())
    try:
        Greenlet(arguments).throw(error)
    except ValueError as caught:
        say(functions_of(caught))


@behaviour
def the_caller_may_be_handling_an_exception() -> None:
    try:
        raise OSError("handled")
    except OSError:
        say(listening().throw(KeyError("thrown")))
        say(sys.exc_info()[0])


@behaviour
def it_throws_into_a_greenlet_that_waits_in_a_handler() -> None:
    def body() -> Any:
        try:
            raise KeyError("handled")
        except KeyError:
            try:
                root().switch()
            except ValueError as error:
                return repr(error.__context__), functions_of(error)

    say(suspended(body).throw(ValueError("thrown")))


@behaviour
def it_throws_into_a_parent_from_a_child() -> None:
    def body() -> None:
        getcurrent().parent.throw(ValueError("from child"))

    made = Greenlet(body)
    say(attempt(made.switch), made.dead, bool(made))


@behaviour
def it_throws_at_a_sibling() -> None:
    def body() -> Any:
        try:
            pause()
        except ValueError as error:
            return "caught", str(error)

    sibling = suspended(body)
    thrower = Greenlet(lambda: sibling.throw(ValueError("sibling")))
    say(thrower.switch(), thrower.dead, sibling.dead)


@behaviour
def a_check_that_fails_leaves_the_target_usable() -> None:
    made = Greenlet(arguments)
    for args in ((1,), (ValueError, 1, 2), (ValueError("x"), 2), (1, 2, 3, 4)):
        say(attempt(made.throw, *args), made.dead)
    say(made.switch("still"))


if __name__ == "__main__":
    run()
