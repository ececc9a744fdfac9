"""What a switch delivers, and where a return value goes."""

from __future__ import annotations

import weakref
from typing import Any

from behaviour import (
    Base,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    getcurrent,
    pause,
    root,
    run,
    say,
    suspended,
)


def echo() -> Any:
    """A suspended greenlet that gives back whatever a switch delivers to it."""

    def body() -> None:
        received: Any = None
        while True:
            received = root().switch(received)

    return suspended(body)


@behaviour
def no_argument_delivers_an_empty_tuple() -> None:
    say(echo().switch())


@behaviour
def one_argument_delivers_that_object() -> None:
    value = object()
    say(echo().switch(value) is value, echo().switch(1), echo().switch(None))


@behaviour
def one_tuple_is_delivered_as_it_is() -> None:
    value = (1, 2)
    say(echo().switch(value) is value, echo().switch(()), echo().switch((1,)))


@behaviour
def several_arguments_deliver_their_tuple() -> None:
    say(echo().switch(1, 2), echo().switch(None, None, None))


@behaviour
def keywords_alone_deliver_their_dict() -> None:
    say(echo().switch(one=1), echo().switch(one=1, two=2))


@behaviour
def arguments_and_keywords_deliver_a_pair() -> None:
    say(echo().switch(1, two=2), echo().switch(1, 2, three=3))


@behaviour
def an_empty_dict_of_keywords_is_no_keywords() -> None:
    nothing: dict[str, Any] = {}
    say(echo().switch(**nothing), echo().switch(1, **nothing), echo().switch(*(), **nothing))


@behaviour
def one_dict_as_an_argument_is_delivered_as_it_is() -> None:
    value = {"one": 1}
    say(echo().switch(value) is value, echo().switch({}))


@behaviour
def keywords_named_like_parameters_are_plain_keywords() -> None:
    say(echo().switch(self=1, args=2, kwargs=3))


@behaviour
def keywords_must_be_strings() -> None:
    say(attempt(echo().switch, **{"a b": 1}))
    wrong: Any = {1: 2}
    say(attempt(lambda: Greenlet(arguments).switch(**wrong)))


@behaviour
def a_start_passes_the_arguments_to_run() -> None:
    say(Greenlet(arguments).switch())
    say(Greenlet(arguments).switch(1))
    say(Greenlet(arguments).switch((1, 2)))
    say(Greenlet(arguments).switch(1, 2, three=3))


@behaviour
def a_dict_received_is_the_targets_own() -> None:
    keywords = {"one": 1}
    received = echo().switch(**keywords)
    received["two"] = 2
    say(keywords, received)


@behaviour
def a_return_value_goes_to_the_parent_unchanged() -> None:
    for value in (None, (), (1,), (1, 2), {"one": 1}, ((1,), {"two": 2})):
        say(Greenlet(lambda value=value: value).switch())


@behaviour
def a_switch_to_oneself_returns_the_value() -> None:
    me = getcurrent()
    say(me.switch(), me.switch(1), me.switch(1, 2), me.switch(one=1), me.switch(1, two=2))


@behaviour
def a_switch_to_oneself_works_in_a_child() -> None:
    say(Greenlet(lambda: getcurrent().switch("self")).switch())


@behaviour
def values_go_back_and_forth() -> None:
    def body(value: int) -> str:
        while value < 5:
            value = pause(value * 10)
        return "enough"

    made = Greenlet(body)
    say(made.switch(1), made.switch(2), made.switch(3), made.switch(5), made.dead)


@behaviour
def siblings_switch_to_each_other() -> None:
    def first() -> str:
        say("first runs")
        say("first received", second_greenlet.switch("to second"))
        return "end of first"

    def second(value: str) -> str:
        say("second received", value)
        first_greenlet.switch("to first")
        return "never"

    first_greenlet, second_greenlet = Greenlet(first), Greenlet(second)
    say(first_greenlet.switch(), first_greenlet.dead, second_greenlet.dead)


@behaviour
def a_child_may_switch_to_its_parent_and_go_on() -> None:
    def body() -> str:
        say("child received", getcurrent().parent.switch("one"))
        return "two"

    made = Greenlet(body)
    say(made.switch())
    say(made.switch("resume"))


@behaviour
def a_grandchild_may_switch_to_the_main_greenlet() -> None:
    def child() -> Any:
        return "child", grandchild.switch()

    def grand() -> Any:
        return "grandchild", pause("from grandchild")

    grandchild = Greenlet(grand)
    made = Greenlet(child)
    say(made.switch())
    say(grandchild.parent is getcurrent(), grandchild.switch("go on"), made.dead)


@behaviour
def a_value_is_released_after_delivery() -> None:
    class Value:
        pass

    value = Value()
    gone = weakref.ref(value)

    def body() -> None:
        pause()
        pause()

    made = suspended(body)
    made.switch(value)
    del value
    say(gone() is None, made.dead)


@behaviour
def switch_needs_a_greenlet() -> None:
    say(attempt(Greenlet.switch))
    say(attempt(Greenlet.switch, 1))
    say(attempt(Greenlet.switch, None))


@behaviour
def switch_works_unbound() -> None:
    say(Greenlet.switch(Greenlet(arguments), 1, two=2))


@behaviour
def switch_may_be_stored_and_called_later() -> None:
    switch = Greenlet(arguments).switch
    say(switch(1))


@behaviour
def a_subclass_may_extend_switch() -> None:
    class Doubling(Base):
        def switch(self, value: int) -> Any:
            return super().switch(value * 2)

    say(Doubling(arguments).switch(4))


@behaviour
def a_greenlet_runs_only_when_switched_to() -> None:
    order: list[str] = []

    def body(name: str) -> None:
        order.append(name + " start")
        pause()
        order.append(name + " end")

    first, second = Greenlet(body), Greenlet(body)
    first.switch("first")
    second.switch("second")
    second.switch()
    first.switch()
    say(order)


@behaviour
def getcurrent_follows_the_switches() -> None:
    main = getcurrent()

    def body() -> bool:
        before = getcurrent()
        pause()
        return getcurrent() is before and before is not main

    made = suspended(body)
    say(getcurrent() is main, made.switch(), getcurrent() is main)


@behaviour
def thousands_of_switches_keep_their_values() -> None:
    made = echo()
    say(sum(made.switch(number) for number in range(5000)))


@behaviour
def many_greenlets_may_wait_at_once() -> None:
    waiting = [suspended(lambda: pause()) for _ in range(500)]
    say(sum(made.switch(number) for number, made in enumerate(waiting)))
    say(all(made.dead for made in waiting))


if __name__ == "__main__":
    run()
