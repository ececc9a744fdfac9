"""Dead and unstarted targets: what is delivered where, along the chain of parents."""

from __future__ import annotations

import functools
import weakref
from typing import Any

from behaviour import (
    Deviation,
    Greenlet,
    GreenletExit,
    arguments,
    attempt,
    behaviour,
    dead,
    fail,
    getcurrent,
    listening,
    pause,
    run,
    say,
    suspended,
)


class Quiet(GreenletExit):  # type: ignore[misc]
    """A kind of `GreenletExit`."""


def tell(*args: Any, **keywords: Any) -> str:
    """A body for parents: says how it was started."""
    say("started with", args, keywords)
    return "parent's value"


@behaviour
def a_switch_to_a_dead_greenlet_returns_the_value_to_its_parent() -> None:
    say(dead().switch(), dead().switch(1), dead().switch(1, 2))
    say(dead().switch(one=1), dead().switch(1, two=2))


@behaviour
def a_switch_to_a_dead_greenlet_can_be_repeated() -> None:
    made = dead()
    say(made.switch(1), made.switch(2), made.dead)


@behaviour
def the_value_goes_past_dead_parents() -> None:
    parent = dead()
    child = Greenlet(arguments, parent)
    child.switch()
    say(child.switch("value", 2))


@behaviour
def the_value_goes_to_a_suspended_parent() -> None:
    receiver = listening()
    child = Greenlet(arguments)
    child.switch()
    child.parent = receiver
    say(child.switch("value"), child.switch(1, 2), child.switch(one=1))


@behaviour
def the_value_starts_an_unstarted_parent_with_the_same_arguments() -> None:
    for args, keywords in (((), {}), ((9,), {}), ((9, 8), {"seven": 7}), (((1, 2),), {})):
        parent = Greenlet(tell)
        child = dead()
        child.parent = parent
        say(child.switch(*args, **keywords), parent.dead)


@behaviour
def the_value_of_an_unstarted_parent_without_run_raises() -> None:
    parent = Greenlet()
    child = dead()
    child.parent = parent
    say(attempt(child.switch, 1), parent.dead)


@behaviour
def a_switch_to_a_dead_greenlet_from_another_goes_to_the_parent() -> None:
    child = dead()
    made = Greenlet(lambda: ("caller", child.switch("past the caller")))
    say(made.switch(), made.dead, bool(made))
    say(made.switch("go on"))


@behaviour
def a_body_that_returns_into_an_unstarted_parent_starts_it() -> None:
    for value in (None, 5, (), (1, 2), {"one": 1}, ((1,), {"two": 2})):
        parent = Greenlet(tell)
        child = Greenlet(lambda value=value: value, parent)
        say(child.switch(), parent.dead, child.dead)


@behaviour
def a_body_that_raises_into_an_unstarted_parent_kills_it() -> None:
    parent = Greenlet(tell)
    child = Greenlet(fail, parent)
    say(attempt(child.switch), parent.dead, child.dead)


@behaviour
def an_exception_kills_a_whole_chain_of_unstarted_parents() -> None:
    chain = [Greenlet(tell)]
    for _ in range(4):
        chain.append(Greenlet(tell, chain[-1]))
    say(attempt(Greenlet(fail, chain[-1]).switch), [made.dead for made in chain])


@behaviour
def a_value_starts_a_chain_of_unstarted_parents_one_after_another() -> None:
    chain = [Greenlet(tell)]
    for _ in range(3):
        chain.append(Greenlet(tell, chain[-1]))
    say(chain[-1].switch("first"), [made.dead for made in chain])


@behaviour
def a_body_that_returns_into_a_parent_without_run_raises_above() -> None:
    parent = Greenlet()
    child = Greenlet(arguments, parent)
    say(attempt(child.switch, 1), child.dead, parent.dead, bool(parent))
    parent.run = arguments
    say(attempt(parent.switch, 2), parent.dead)


@behaviour
def a_body_that_raises_into_a_parent_without_run_raises_about_run() -> None:
    parent = Greenlet()
    child = Greenlet(fail, parent)
    say(attempt(child.switch), child.dead, parent.dead)


@behaviour
def a_body_that_returns_into_a_parent_with_a_wrong_run_kills_it() -> None:
    parent = Greenlet(5)
    child = Greenlet(arguments, parent)
    say(attempt(child.switch), child.dead, parent.dead)


@behaviour
def a_body_that_returns_goes_past_a_dead_parent() -> None:
    child = Greenlet(arguments, dead())
    say(child.switch(1))


@behaviour
def a_body_that_raises_goes_past_a_dead_parent() -> None:
    child = Greenlet(fail, dead())
    say(attempt(child.switch))


@behaviour
def a_body_that_returns_goes_past_many_dead_parents() -> None:
    parent = dead()
    for _ in range(50):
        child = dead()
        child.parent = parent
        parent = child
    say(Greenlet(arguments, parent).switch(1))
    say(attempt(Greenlet(fail, parent).switch))


@behaviour
def a_body_that_returns_resumes_a_suspended_parent() -> None:
    receiver = listening()
    say(Greenlet(arguments, receiver).switch(1), receiver.dead)


@behaviour
def a_body_that_raises_raises_in_a_suspended_parent() -> None:
    receiver = listening()
    say(Greenlet(fail, receiver).switch(), receiver.dead)


@behaviour
def an_exception_ends_every_parent_that_does_not_catch_it() -> None:
    outer = suspended()
    inner = suspended(pause, outer)
    child = Greenlet(fail, inner)
    say(attempt(child.switch), child.dead, inner.dead, outer.dead)


@behaviour
def greenlet_exit_is_returned_not_raised() -> None:
    def body(*args: Any) -> None:
        raise GreenletExit(*args)

    say(Greenlet(body).switch(), Greenlet(body).switch(5), Greenlet(body).switch(5, 6))


@behaviour
def greenlet_exit_raised_as_a_class_is_returned_as_an_instance() -> None:
    def body() -> None:
        raise GreenletExit

    value = Greenlet(body).switch()
    say(type(value), value.args)


@behaviour
def the_very_instance_of_greenlet_exit_is_returned() -> None:
    error = GreenletExit("mine")

    def body() -> None:
        raise error

    say(Greenlet(body).switch() is error)


@behaviour
def a_subclass_of_greenlet_exit_is_returned_too() -> None:
    def body() -> None:
        raise Quiet(1, 2)

    value = Greenlet(body).switch()
    say(type(value) is Quiet, value.args)


@behaviour
def greenlet_exit_goes_as_a_value_to_a_suspended_parent() -> None:
    def body() -> None:
        raise GreenletExit("bye")

    say(Greenlet(body, listening()).switch())


@behaviour
def greenlet_exit_of_a_body_starts_an_unstarted_parent() -> None:
    def body() -> None:
        raise GreenletExit("bye")

    parent = Greenlet(tell)
    say(Greenlet(body, parent).switch(), parent.dead)


@behaviour
def greenlet_exit_thrown_before_the_start_starts_an_unstarted_parent() -> None:
    for args in ((), (GreenletExit, 5), (GreenletExit("mine"),), (Quiet,)):
        parent = Greenlet(tell)
        child = Greenlet(arguments, parent)
        say(attempt(child.throw, *args), child.dead, parent.dead)


@behaviour
def greenlet_exit_thrown_into_a_suspended_one_starts_an_unstarted_parent() -> None:
    parent = Greenlet(tell)
    child = suspended()
    child.parent = parent
    say(attempt(child.throw, GreenletExit, 5), child.dead, parent.dead)


@behaviour
def greenlet_exit_thrown_into_a_dead_one_starts_an_unstarted_parent() -> None:
    parent = Greenlet(tell)
    child = dead()
    child.parent = parent
    say(attempt(child.throw, GreenletExit, 5), parent.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="The parent starts without arguments, whatever its run is.",
            ours=("'parent has no arguments' True",),
            published=(
                'raised TypeError: can only concatenate tuple (not "GreenletExit") to tuple True',
            ),
        ),
    )
)
def greenlet_exit_starts_a_parent_whose_run_is_a_partial_of_a_class() -> None:
    class Parent:
        def __init__(self, *args: Any) -> None:
            self.args = args

        def __repr__(self) -> str:
            return f"'parent has {self.args or 'no arguments'}'"

    parent = Greenlet(functools.partial(Parent))
    child = Greenlet(arguments, parent)
    say(attempt(child.throw), parent.dead)


@behaviour(
    deviations=(
        Deviation(
            reason="What nobody can receive any more is not kept.",
            ours=("raised AttributeError: run", "the message is gone: True"),
            published=("raised AttributeError: run", "the message is gone: False"),
        ),
    )
)
def a_message_to_a_dead_greenlet_whose_parent_cannot_start() -> None:
    class Sent:
        pass

    made = Greenlet(None, Greenlet())
    attempt(made.switch)
    sent = Sent()
    reference = weakref.ref(sent)
    say(attempt(made.switch, sent))
    del sent
    say(f"the message is gone: {reference() is None}")


@behaviour
def an_exception_thrown_into_a_dead_one_kills_an_unstarted_parent() -> None:
    parent = Greenlet(tell)
    child = dead()
    child.parent = parent
    say(attempt(child.throw, KeyError("thrown")), parent.dead)


@behaviour
def an_exception_thrown_before_the_start_kills_an_unstarted_parent() -> None:
    parent = Greenlet(tell)
    child = Greenlet(arguments, parent)
    say(attempt(child.throw, KeyError("thrown")), child.dead, parent.dead)


@behaviour
def an_exception_thrown_before_the_start_reaches_a_suspended_parent() -> None:
    child = Greenlet(arguments, listening())
    say(child.throw(KeyError("thrown")), child.dead)


@behaviour
def greenlet_exit_thrown_before_the_start_is_a_value_for_a_suspended_parent() -> None:
    for args in ((), (GreenletExit, 5), (GreenletExit("mine"),)):
        child = Greenlet(arguments, listening())
        say(child.throw(*args), child.dead)


@behaviour
def an_exception_thrown_into_a_dead_one_reaches_a_suspended_parent() -> None:
    child = dead()
    child.parent = listening()
    say(child.throw(KeyError("thrown")))


@behaviour
def greenlet_exit_thrown_into_a_dead_one_is_a_value_for_a_suspended_parent() -> None:
    child = dead()
    child.parent = listening()
    say(child.throw(), child.throw(GreenletExit, 5))


@behaviour
def greenlet_exit_thrown_into_a_suspended_one_is_a_value_for_its_parent() -> None:
    child = suspended(pause, None)
    child.parent = listening()
    say(child.throw(GreenletExit, 5), child.dead)


@behaviour
def a_greenlet_that_swallows_greenlet_exit_goes_on() -> None:
    def body() -> Any:
        try:
            pause()
        except GreenletExit:
            return "returned", pause("swallowed")

    made = suspended(body)
    say(made.throw(), made.dead)
    say(made.switch("more"), made.dead)


@behaviour
def a_thrown_greenlet_exit_runs_finally_blocks() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            say("finally", getcurrent().dead)

    made = suspended(body)
    say(made.throw(), made.dead)


@behaviour
def the_end_of_a_greenlet_frees_what_it_held() -> None:
    class Value:
        pass

    def body() -> None:
        value = Value()
        gone.append(weakref.ref(value))
        pause()

    gone: list[Any] = []
    made = suspended(body)
    say(gone[0]() is not None)
    made.switch()
    say(gone[0]() is None)


@behaviour
def arguments_are_freed_when_the_body_is_done_with_them() -> None:
    class Value:
        pass

    def body(value: Any) -> None:
        del value
        pause()

    value = Value()
    gone = weakref.ref(value)
    made = Greenlet(lambda given: body(given))
    made.switch(value)
    del value
    made.switch()
    say(gone() is None, made.dead)


if __name__ == "__main__":
    run()
