"""greenlet.settrace: a callback sees every switch of its thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, gettrace, greenlet, settrace
from helpers import collect, in_thread, to_parent

Event = tuple[str, greenlet, greenlet]


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """What the callback saw while the test ran."""
    seen: list[Event] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        seen.append((event, *pair))

    collect()  # otherwise the ends of greenlets that other tests left in cycles would be traced
    settrace(callback)
    try:
        yield seen
    finally:
        settrace(None)


@pytest.fixture
def untraced() -> Iterator[None]:
    yield
    settrace(None)


class Refusal(Exception):
    pass


def refuse(event: str, pair: tuple[greenlet, greenlet]) -> None:
    raise Refusal(event)


def waiting() -> greenlet:
    g = greenlet(to_parent)
    g.switch()
    return g


def test_settrace_returns_the_previous_callback(untraced: None) -> None:
    def first(*args: object) -> None: ...

    def second(*args: object) -> None: ...

    assert gettrace() is None
    assert settrace(first) is None
    assert gettrace() is first
    assert settrace(second) is first
    assert settrace(None) is second
    assert gettrace() is None


def test_a_start_a_switch_and_a_return_are_switches(events: list[Event]) -> None:
    main = getcurrent()
    g = greenlet(lambda: main.switch())
    g.switch()
    g.switch()
    settrace(None)
    assert events == [
        ("switch", main, g),
        ("switch", g, main),
        ("switch", main, g),
        ("switch", g, main),
    ]


def test_throw_and_an_exception_that_rises_to_the_parent_are_throws(events: list[Event]) -> None:
    main = getcurrent()
    g = waiting()
    with pytest.raises(KeyError):
        g.throw(KeyError)
    settrace(None)
    assert events[2:] == [("throw", main, g), ("throw", g, main)]


def test_greenlet_exit_that_ends_a_greenlet_is_a_switch_to_the_parent(
    events: list[Event],
) -> None:
    main = getcurrent()
    g = waiting()
    g.throw(GreenletExit)
    settrace(None)
    assert events[2:] == [("throw", main, g), ("switch", g, main)]


def test_the_callback_runs_in_the_target_after_the_switch(untraced: None) -> None:
    currents: list[bool] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        currents.append(getcurrent() is pair[1])

    settrace(callback)
    g = waiting()
    g.switch()
    settrace(None)
    assert currents == [True] * 4


def test_a_switch_to_oneself_is_traced(events: list[Event]) -> None:
    main = getcurrent()
    main.switch()
    with pytest.raises(KeyError):
        main.throw(KeyError)
    settrace(None)
    assert events == [("switch", main, main), ("throw", main, main)]


def test_the_death_of_a_dropped_greenlet_is_traced(events: list[Event]) -> None:
    main = getcurrent()
    g = waiting()
    identity = id(g)
    events.clear()
    del g
    collect()
    settrace(None)
    assert [(event, id(origin), id(target)) for event, origin, target in events] == [
        ("throw", id(main), identity),
        ("switch", identity, id(main)),
    ]


def test_the_callback_of_one_thread_is_not_called_in_another(events: list[Event]) -> None:
    def other() -> Any:
        greenlet(lambda: None).switch()
        return gettrace()

    assert in_thread(other) is None
    settrace(None)
    assert events == []


def test_a_callback_that_raises_at_a_start_is_raised_by_the_new_greenlet(untraced: None) -> None:
    started: list[bool] = []
    settrace(refuse)
    g = greenlet(lambda: started.append(True))
    with pytest.raises(Refusal, match="switch"):
        g.switch()
    assert g.dead
    assert started == []


def test_a_callback_that_raises_turns_tracing_off(untraced: None) -> None:
    settrace(refuse)
    with pytest.raises(Refusal):
        greenlet(lambda: None).switch()
    assert gettrace() is None
    assert greenlet(lambda: "untraced").switch() == "untraced"


def test_a_callback_that_raises_replaces_the_value_sent(untraced: None) -> None:
    def run() -> str:
        try:
            to_parent()
        except Refusal as refusal:
            return f"refused {refusal}"
        return "not reached"

    g = greenlet(run)
    g.switch()
    settrace(refuse)
    assert g.switch("lost") == "refused switch"


def test_a_callback_that_raises_replaces_the_exception_thrown(untraced: None) -> None:
    def run() -> str:
        try:
            to_parent()
        except Refusal as refusal:
            return f"refused {refusal}"
        return "not reached"

    g = greenlet(run)
    g.switch()
    settrace(refuse)
    assert g.throw(KeyError) == "refused throw"


def test_a_callback_that_raises_in_the_caller_is_raised_by_its_switch(untraced: None) -> None:
    calls: list[str] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise Refusal("at the return")

    settrace(callback)
    g = greenlet(to_parent)
    with pytest.raises(Refusal, match="at the return"):
        g.switch()
    assert not g.dead
    assert gettrace() is None


def test_a_callback_that_is_not_callable_fails_at_the_switch(untraced: None) -> None:
    not_callable: Any = 5
    settrace(not_callable)
    with pytest.raises(TypeError, match="not callable"):
        greenlet(lambda: None).switch()
    assert gettrace() is None


def test_a_callback_may_switch(untraced: None) -> None:
    results: list[str] = []
    depth = 0

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        nonlocal depth
        if depth == 0:
            depth += 1
            results.append(greenlet(lambda: "from the callback").switch())
            depth -= 1

    settrace(callback)
    assert greenlet(lambda: "result").switch() == "result"
    settrace(None)
    assert results == ["from the callback"] * 2


def test_a_callback_may_turn_itself_off(untraced: None) -> None:
    calls: list[str] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        calls.append(event)
        settrace(None)

    settrace(callback)
    assert greenlet(lambda: "result").switch() == "result"
    assert calls == ["switch"]


def test_a_callback_set_inside_a_greenlet_holds_for_the_whole_thread(untraced: None) -> None:
    calls: list[str] = []
    greenlet(lambda: settrace(lambda event, pair: calls.append(event))).switch()
    greenlet(lambda: None).switch()
    settrace(None)
    # The return from the greenlet that set the callback, then a start and a return.
    assert calls == ["switch"] * 3


def test_the_value_of_the_callback_is_ignored(untraced: None) -> None:
    settrace(lambda event, pair: "ignored")
    assert greenlet(lambda: "result").switch() == "result"


def test_the_callback_sees_the_values_of_neither_side(untraced: None) -> None:
    shapes: list[tuple[int, list[type]]] = []

    def callback(*args: Any) -> None:
        shapes.append((len(args), [type(item) for item in args[1]]))

    settrace(callback)
    greenlet(lambda *args: args).switch(1, 2, 3)
    settrace(None)
    assert shapes == [(2, [greenlet, greenlet])] * 2


def test_settrace_takes_exactly_one_argument() -> None:
    call: Any = settrace
    with pytest.raises(TypeError):
        call()
    with pytest.raises(TypeError):
        call(None, None)


def test_tracing_survives_ten_thousand_switches(untraced: None) -> None:
    count = 0

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        nonlocal count
        count += 1

    def run() -> None:
        for _ in range(5_000):
            to_parent()

    g = greenlet(run)
    settrace(callback)
    while not g.dead:
        g.switch()
    settrace(None)
    assert count == 2 * 5_001
