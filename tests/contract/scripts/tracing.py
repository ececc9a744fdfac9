"""`settrace`: which events, in which order, with whom; and callbacks that misbehave."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from behaviour import (
    Greenlet,
    GreenletExit,
    arguments,
    attempt,
    behaviour,
    dead,
    fail,
    getcurrent,
    library,
    listening,
    pause,
    root,
    run,
    say,
    suspended,
)

names: dict[int, str] = {}


def named(made: Any, name: str) -> Any:
    """Give a greenlet a name in the transcript, by its id, so that the greenlet can still die."""
    names[id(made)] = name
    return made


def name_of(made: Any) -> str:
    return names.get(id(made), "?")


@contextmanager
def traced() -> Iterator[None]:
    """Say every event while the block runs."""

    def callback(event: str, args: tuple[Any, Any]) -> None:
        origin, target = args
        say(event, name_of(origin), "->", name_of(target), "in", name_of(getcurrent()))

    named(root(), "main")
    library.settrace(callback)
    try:
        yield
    finally:
        library.settrace(None)


@behaviour
def settrace_returns_the_previous_callback() -> None:
    def one(*args: Any) -> None: ...
    def two(*args: Any) -> None: ...

    say(library.settrace(one), library.settrace(two) is one, library.gettrace() is two)
    say(library.settrace(None) is two, library.gettrace(), library.settrace(None))


@behaviour
def settrace_takes_anything() -> None:
    say(attempt(library.settrace, 5), library.gettrace())
    say(library.settrace(None))


@behaviour
def a_callback_that_cannot_be_called_raises_at_the_switch() -> None:
    library.settrace(5)
    made = Greenlet(arguments)
    say(attempt(made.switch), made.dead, library.gettrace())


@behaviour
def the_events_of_a_start_and_an_end() -> None:
    made = named(Greenlet(lambda: say("runs")), "child")
    with traced():
        made.switch()


@behaviour
def the_events_of_a_pause_and_a_resume() -> None:
    made = named(Greenlet(pause), "child")
    with traced():
        made.switch()
        say("paused")
        made.switch()


@behaviour
def the_events_of_a_body_that_raises() -> None:
    made = named(Greenlet(fail), "child")
    with traced():
        say(attempt(made.switch))


@behaviour
def the_events_of_a_body_that_raises_greenlet_exit() -> None:
    def body() -> None:
        raise GreenletExit

    made = named(Greenlet(body), "child")
    with traced():
        say(attempt(made.switch))


@behaviour
def the_events_of_a_throw_that_is_caught() -> None:
    made = named(listening(), "child")
    with traced():
        say(made.throw(ValueError))


@behaviour
def the_events_of_a_throw_that_escapes() -> None:
    made = named(suspended(), "child")
    with traced():
        say(attempt(made.throw, ValueError))


@behaviour
def the_events_of_greenlet_exit_thrown() -> None:
    made = named(suspended(), "child")
    with traced():
        say(attempt(made.throw))


@behaviour
def the_events_of_a_throw_before_the_start() -> None:
    for args in ((), (ValueError,)):
        made = named(Greenlet(arguments), "child")
        with traced():
            say(attempt(made.throw, *args))


@behaviour
def the_events_of_a_throw_at_a_dead_greenlet() -> None:
    for args in ((), (ValueError,)):
        made = named(dead(), "child")
        with traced():
            say(attempt(made.throw, *args))


@behaviour
def the_event_of_a_switch_to_a_dead_greenlet() -> None:
    made = named(dead(), "child")
    with traced():
        say(made.switch(1))


@behaviour
def the_event_of_a_switch_to_oneself() -> None:
    with traced():
        say(getcurrent().switch(1))


@behaviour
def the_event_of_a_throw_at_oneself() -> None:
    with traced():
        say(attempt(getcurrent().throw, ValueError))


@behaviour
def the_events_of_an_end_that_starts_the_parent() -> None:
    parent = named(Greenlet(arguments), "parent")
    made = named(Greenlet(arguments, parent), "child")
    with traced():
        say(made.switch(1))


@behaviour
def the_events_of_an_exception_that_kills_an_unstarted_parent() -> None:
    parent = named(Greenlet(arguments), "parent")
    made = named(Greenlet(fail, parent), "child")
    with traced():
        say(attempt(made.switch))


@behaviour
def the_events_of_an_end_past_a_dead_parent() -> None:
    parent = named(dead(), "parent")
    made = named(Greenlet(arguments, parent), "child")
    with traced():
        say(made.switch(1))


@behaviour
def the_events_of_a_start_without_run() -> None:
    made = named(Greenlet(), "child")
    with traced():
        say(attempt(made.switch))


@behaviour
def the_events_of_an_end_into_a_parent_without_run() -> None:
    parent = named(Greenlet(), "parent")
    made = named(Greenlet(arguments, parent), "child")
    with traced():
        say(attempt(made.switch))


@behaviour
def the_events_among_siblings() -> None:
    def first() -> None:
        two.switch()

    one = named(Greenlet(first), "one")
    two = named(Greenlet(arguments), "two")
    with traced():
        one.switch()
        say("back in main")
        one.switch()


@behaviour
def the_events_of_a_death_by_lost_reference() -> None:
    made = named(suspended(), "child")
    with traced():
        del made
        gc.collect()
        say("deleted")


@behaviour
def the_events_of_a_death_inside_another_greenlet() -> None:
    held = [named(suspended(), "victim")]
    killer = named(Greenlet(held.clear), "killer")
    with traced():
        killer.switch()


@behaviour
def a_refused_switch_has_no_event() -> None:
    made = named(Greenlet(arguments), "child")
    with traced():
        say(attempt(made.throw, 1))
        say(attempt(made.throw, ValueError, 1, 1))


@behaviour
def the_callbacks_value_is_ignored() -> None:
    library.settrace(lambda event, args: 5)
    say(Greenlet(arguments).switch(1), library.gettrace() is not None)
    library.settrace(None)


@behaviour
def the_callback_gets_two_arguments() -> None:
    def callback(*args: Any) -> None:
        say(len(args), type(args[0]), type(args[1]), len(args[1]))

    library.settrace(callback)
    Greenlet(arguments).switch()
    library.settrace(None)


@behaviour
def a_callback_that_raises_at_a_start_kills() -> None:
    def callback(event: str, args: Any) -> None:
        raise KeyError("callback")

    library.settrace(callback)
    made = Greenlet(lambda: say("runs"))
    say(attempt(made.switch), made.dead, library.gettrace())


@behaviour
def a_callback_that_raises_at_a_resume_raises_there() -> None:
    def callback(event: str, args: Any) -> None:
        raise KeyError("callback")

    made = listening()
    library.settrace(callback)
    say(made.switch("value"), library.gettrace(), made.dead)


@behaviour
def a_callback_that_raises_replaces_what_is_thrown() -> None:
    def callback(event: str, args: Any) -> None:
        raise KeyError("callback")

    made = listening()
    library.settrace(callback)
    say(made.throw(ValueError("thrown")), library.gettrace())


@behaviour
def a_callback_that_raises_at_an_end_replaces_the_value() -> None:
    main = getcurrent()

    def callback(event: str, args: Any) -> None:
        if args[1] is main:
            raise KeyError("callback")

    library.settrace(callback)
    made = Greenlet(arguments)
    say(attempt(made.switch), made.dead, library.gettrace())


@behaviour
def a_callback_that_raises_at_an_end_replaces_the_exception() -> None:
    main = getcurrent()

    def callback(event: str, args: Any) -> None:
        if args[1] is main:
            raise KeyError("callback")

    library.settrace(callback)
    made = Greenlet(fail)
    say(attempt(made.switch), made.dead, library.gettrace())


@behaviour
def a_callback_that_raises_at_a_switch_to_oneself() -> None:
    def callback(event: str, args: Any) -> None:
        raise KeyError("callback")

    library.settrace(callback)
    say(attempt(getcurrent().switch, 1), library.gettrace())


@behaviour
def a_callback_that_raises_greenlet_exit_at_a_start() -> None:
    def callback(event: str, args: Any) -> None:
        raise GreenletExit("callback")

    library.settrace(callback)
    made = Greenlet(arguments)
    say(attempt(made.switch), made.dead, library.gettrace())


@behaviour
def a_callback_may_switch() -> None:
    def callback(event: str, args: Any) -> None:
        say(event)
        if not nested:
            nested.append(1)
            say(Greenlet(lambda: "nested").switch())

    nested: list[int] = []
    library.settrace(callback)
    say(Greenlet(arguments).switch(1))
    library.settrace(None)


@behaviour
def a_callback_may_remove_itself() -> None:
    def callback(event: str, args: Any) -> None:
        say(event)
        library.settrace(None)

    library.settrace(callback)
    say(Greenlet(arguments).switch(1), library.gettrace())


@behaviour
def a_callback_may_replace_itself() -> None:
    def first(event: str, args: Any) -> None:
        say("first", event)
        library.settrace(second)

    def second(event: str, args: Any) -> None:
        say("second", event)

    library.settrace(first)
    say(Greenlet(arguments).switch(1))
    library.settrace(None)


@behaviour
def a_callback_set_in_a_child_holds_for_the_thread() -> None:
    def callback(event: str, args: Any) -> None:
        say(event, args[1] is main)

    main = getcurrent()
    Greenlet(lambda: library.settrace(callback)).switch()
    say(library.gettrace() is callback)
    library.settrace(None)


@behaviour
def a_callback_removed_in_a_child_is_gone_in_main() -> None:
    library.settrace(arguments)
    Greenlet(lambda: library.settrace(None)).switch()
    say(library.gettrace())


@behaviour
def the_callback_sees_origin_and_target_alive() -> None:
    def callback(event: str, args: Any) -> None:
        say(args[0].dead, args[1].dead, args[1] is getcurrent())

    made = Greenlet(arguments)
    library.settrace(callback)
    made.switch()
    library.settrace(None)


@behaviour
def the_callback_is_released_when_removed() -> None:
    class Callback:
        def __call__(self, *args: Any) -> None: ...

    callback = Callback()
    gone = weakref.ref(callback)
    library.settrace(callback)
    del callback
    say(gone() is not None)
    library.settrace(None)
    say(gone())


if __name__ == "__main__":
    run()
