"""Exceptions across switches: tracebacks, contexts, and what each greenlet is handling."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from behaviour import (
    Deviation,
    Greenlet,
    GreenletExit,
    arguments,
    attempt,
    behaviour,
    describe,
    fail,
    functions_of,
    getcurrent,
    listening,
    pause,
    root,
    run,
    say,
    suspended,
)


def handled() -> Any:
    """The type of the exception that is being handled here."""
    return sys.exc_info()[0]


@behaviour
def an_exception_of_the_body_is_raised_in_the_parent() -> None:
    made = Greenlet(fail)
    say(attempt(made.switch), made.dead)


@behaviour
def the_very_instance_is_raised() -> None:
    error = ValueError("mine")

    def body() -> None:
        raise error

    try:
        Greenlet(body).switch()
    except ValueError as caught:
        say(caught is error)


@behaviour
def the_traceback_has_the_frames_of_both() -> None:
    def outer() -> None:
        inner()

    def inner() -> None:
        raise ValueError

    try:
        Greenlet(outer).switch()
    except ValueError as error:
        say(functions_of(error))


@behaviour
def the_traceback_has_the_frames_of_a_whole_chain() -> None:
    def first() -> None:
        Greenlet(second).switch()

    def second() -> None:
        Greenlet(third).switch()

    def third() -> None:
        raise ValueError

    try:
        Greenlet(first).switch()
    except ValueError as error:
        say(functions_of(error))


@behaviour
def the_traceback_has_no_frame_of_parents_that_never_ran() -> None:
    parent = Greenlet(arguments)
    try:
        Greenlet(fail, parent).switch()
    except ValueError as error:
        say(functions_of(error))


@behaviour
def base_exceptions_cross_too() -> None:
    for kind in (SystemExit, KeyboardInterrupt, BaseException, GeneratorExit, StopIteration):

        def body(kind: Any = kind) -> None:
            raise kind("crossed")

        made = Greenlet(body)
        say(attempt(made.switch), made.dead)


@behaviour
def an_exception_that_is_caught_in_the_parent_is_over() -> None:
    try:
        Greenlet(fail).switch()
    except ValueError:
        say(handled())
    say(handled())


@behaviour
def a_new_greenlet_handles_nothing() -> None:
    try:
        raise OSError("handled by main")
    except OSError:
        say(Greenlet(handled).switch(), handled())


@behaviour
def a_resumed_greenlet_handles_nothing_of_its_resumer() -> None:
    def body() -> Any:
        pause()
        return handled()

    made = suspended(body)
    try:
        raise OSError("handled by main")
    except OSError:
        say(made.switch(), handled())


@behaviour
def what_a_suspended_greenlet_handles_is_its_own() -> None:
    def body() -> Any:
        try:
            raise KeyError("handled by child")
        except KeyError:
            pause(handled())
            pause(handled())
        return handled()

    made = Greenlet(body)
    say(made.switch(), handled())
    try:
        raise OSError("handled by main")
    except OSError:
        say(made.switch(), handled())
    say(made.switch(), handled())


@behaviour
def nested_handlers_stay_nested() -> None:
    def body() -> list[Any]:
        seen = []
        try:
            raise KeyError
        except KeyError:
            try:
                raise TypeError
            except TypeError:
                pause()
                seen.append(handled())
            pause()
            seen.append(handled())
        pause()
        seen.append(handled())
        return seen

    made = suspended(body)
    try:
        raise OSError
    except OSError:
        made.switch()
        say(handled())
    made.switch()
    say(made.switch(), handled())


@behaviour
def a_bare_raise_in_a_new_greenlet_has_nothing_to_raise() -> None:
    def body() -> None:
        raise

    try:
        raise OSError("handled by main")
    except OSError:
        say(attempt(Greenlet(body).switch))


@behaviour
def a_bare_raise_after_a_switch_raises_ones_own() -> None:
    def body() -> None:
        try:
            raise KeyError("child's")
        except KeyError:
            pause()
            raise

    made = suspended(body)
    try:
        raise OSError("main's")
    except OSError:
        say(attempt(made.switch))


@behaviour
def an_exception_that_arrives_in_a_handler_gets_no_context() -> None:
    try:
        raise OSError("handled by main")
    except OSError:
        try:
            Greenlet(fail).switch()
        except ValueError as error:
            say(repr(error.__context__))


@behaviour
def an_exception_raised_in_the_child_has_no_context_of_the_parent() -> None:
    def body() -> str:
        try:
            raise ValueError
        except ValueError as error:
            return repr(error.__context__)

    try:
        raise OSError("handled by main")
    except OSError:
        say(Greenlet(body).switch())


@behaviour
def an_exception_raised_in_a_handler_of_the_child_has_its_context() -> None:
    def body() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            pause()
            raise ValueError("second") from None

    made = suspended(body)
    try:
        made.switch()
    except ValueError as error:
        say(repr(error.__context__), error.__suppress_context__)


@behaviour
def a_cause_crosses() -> None:
    def body() -> None:
        raise ValueError("effect") from KeyError("cause")

    try:
        Greenlet(body).switch()
    except ValueError as error:
        say(repr(error.__cause__))


@behaviour
def an_exception_group_crosses() -> None:
    def body() -> None:
        raise ExceptionGroup("several", [ValueError(1), KeyError(2)])

    try:
        Greenlet(body).switch()
    except* ValueError as group:
        say(group.exceptions)
    except* KeyError as group:
        say(group.exceptions)


@behaviour
def notes_cross() -> None:
    def body() -> None:
        error = ValueError("noted")
        error.add_note("a note")
        raise error

    try:
        Greenlet(body).switch()
    except ValueError as error:
        say(error.__notes__)


@behaviour
def an_exception_thrown_and_caught_leaves_nothing() -> None:
    def body() -> Any:
        try:
            pause()
        except ValueError:
            pause()
        pause(handled())

    made = suspended(body)
    made.throw(ValueError)
    say(made.switch(), handled())


@behaviour
def a_finally_block_may_switch_while_an_exception_is_under_way() -> None:
    def body() -> None:
        try:
            raise ValueError("under way")
        finally:
            pause("from finally")

    made = Greenlet(body)
    say(made.switch(), handled())
    say(attempt(made.switch), made.dead)


@behaviour
def a_with_block_may_switch_in_its_exit() -> None:
    class Manager:
        def __enter__(self) -> None:
            pause("enter")

        def __exit__(self, kind: object, error: object, trace: object) -> bool:
            say("exit sees", kind, pause("exit"))
            return True

    def body() -> str:
        with Manager():
            raise ValueError("swallowed")
        return "after"

    made = Greenlet(body)
    say(made.switch(), made.switch(), made.switch("resumed"))


@behaviour
def an_exception_may_travel_by_value() -> None:
    def body() -> None:
        try:
            raise ValueError("value")
        except ValueError as error:
            pause(error)

    error = Greenlet(body).switch()
    say(describe(error), functions_of(error), handled())


@behaviour(
    deviations=(
        Deviation(
            reason="GreenletExit delivered as a value keeps its traceback.",
            ours=("['body', 'inner']",),
            published=("[]",),
            on=("3.11",),
        ),
    )
)
def greenlet_exit_as_a_value_keeps_its_traceback() -> None:
    def body() -> None:
        inner()

    def inner() -> None:
        raise GreenletExit("value")

    error = Greenlet(body).switch()
    say([entry.name for entry in traceback.extract_tb(error.__traceback__)])


@behaviour
def greenlet_exit_is_not_caught_by_except_exception() -> None:
    def body() -> str:
        try:
            pause()
        except Exception:
            return "caught"
        return "not thrown"

    made = suspended(body)
    say(made.throw(), made.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="A thrown instance keeps its traceback, as with raise.",
            ours=(
                "ValueError: failed ['the_error_of_one_greenlet_can_be_raised"
                "_again_in_another', 'body', 'body'] None",
            ),
            published=(
                "ValueError: failed ['the_error_of_one_greenlet_can_be_raised"
                "_again_in_another', 'body'] None",
            ),
            on=("3.11", "3.12", "3.13"),
        ),
    )
)
def the_error_of_one_greenlet_can_be_raised_again_in_another() -> None:
    def body() -> None:
        try:
            fail()
        except ValueError as error:
            Greenlet(arguments).throw(error)

    try:
        Greenlet(body).switch()
    except ValueError as error:
        say(describe(error), functions_of(error), repr(error.__context__))


@behaviour
def an_exception_in_a_child_goes_through_its_parents_finally() -> None:
    def parent() -> None:
        try:
            Greenlet(fail).switch()
        finally:
            say("finally in parent", handled(), getcurrent() is not root())

    say(attempt(Greenlet(parent).switch))


@behaviour
def a_child_that_is_thrown_at_from_a_handler_sees_no_context() -> None:
    def body() -> Any:
        try:
            pause()
        except ValueError as error:
            return repr(error.__context__), handled()

    made = suspended(body)
    try:
        raise OSError("handled by main")
    except OSError:
        say(made.throw(ValueError("thrown")), handled())


@behaviour
def a_listening_parent_catches_again_and_again() -> None:
    receiver = listening()
    say(Greenlet(fail, receiver).switch())
    say(Greenlet(fail, receiver).switch())
    say(Greenlet(arguments, receiver).switch(3))


if __name__ == "__main__":
    run()
