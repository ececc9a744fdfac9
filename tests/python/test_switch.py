"""switch(): what it delivers, to whom, and where execution goes on."""

from __future__ import annotations

import functools
from typing import Any

import greenlet as module
import pytest
from greenlet import getcurrent, greenlet
from helpers import address_of, to_parent

# What g.switch(*args, **kwargs) returns in a greenlet that waits in switch().
DELIVERED: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = [
    ((), {}, ()),
    ((1,), {}, 1),
    ((None,), {}, None),
    (((),), {}, ()),
    (((1, 2),), {}, (1, 2)),
    ((1, 2), {}, (1, 2)),
    ((None, None), {}, (None, None)),
    ((), {"a": 1}, {"a": 1}),
    ((1,), {"a": 2}, ((1,), {"a": 2})),
    ((1, 2), {"a": 3, "b": 4}, ((1, 2), {"a": 3, "b": 4})),
    (({"a": 1},), {}, {"a": 1}),
]


@pytest.mark.parametrize(("args", "kwargs", "expected"), DELIVERED)
def test_a_waiting_greenlet_receives_the_arguments_of_switch(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    received: list[Any] = []
    g = greenlet(lambda: received.append(to_parent()))
    g.switch()
    g.switch(*args, **kwargs)
    assert received == [expected]


@pytest.mark.parametrize(("args", "kwargs", "expected"), DELIVERED)
def test_a_waiting_parent_receives_the_arguments_of_switch(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    g = greenlet(lambda: to_parent(*args, **kwargs))
    assert g.switch() == expected


@pytest.mark.parametrize(("args", "kwargs", "expected"), DELIVERED)
def test_switching_to_a_finished_child_of_the_caller_returns_the_arguments_at_once(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    g = greenlet(lambda: None)
    g.switch()
    assert g.dead
    assert g.switch(*args, **kwargs) == expected


@pytest.mark.parametrize(("args", "kwargs", "expected"), DELIVERED)
def test_switching_to_oneself_returns_the_arguments_at_once(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    assert getcurrent().switch(*args, **kwargs) == expected
    assert greenlet(lambda: getcurrent().switch(*args, **kwargs)).switch() == expected


@pytest.mark.parametrize(("args", "kwargs"), [row[:2] for row in DELIVERED])
def test_the_first_switch_passes_its_arguments_to_run(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    g = greenlet(lambda *a, **k: ["run", a, k])
    assert g.switch(*args, **kwargs) == ["run", args, kwargs]


class Takes:
    """CPython calls an instance without a vector of arguments, and the class, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.taken = args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def method(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


@pytest.mark.parametrize(("args", "kwargs"), [row[:2] for row in DELIVERED])
def test_the_first_switch_passes_its_arguments_to_any_callable(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    for run in (Takes(), Takes().method, functools.partial(Takes())):
        assert greenlet(run).switch(*args, **kwargs) == (args, kwargs)
    assert greenlet(Takes).switch(*args, **kwargs).taken == (args, kwargs)


def test_what_a_child_ends_with_is_the_argument_of_a_parent_that_has_not_started() -> None:
    for run in (lambda *args: ("run", args), Takes()):
        child = greenlet(lambda: (1, 2), greenlet(run))
        assert child.switch()[-2:] in [("run", ((1, 2),)), (((1, 2),), {})]


def test_an_exit_that_meets_a_start_is_delivered_as_the_exception() -> None:
    received: list[Any] = []

    class Overrides(greenlet):
        def run(self) -> None:
            received.append(child.switch())

    class StartsWhenDropped:
        def __del__(self) -> None:
            parent.switch()

        def __call__(self) -> None: ...

    parent = Overrides(StartsWhenDropped())
    exit_ = module.GreenletExit("told")
    child = greenlet(lambda: raise_(exit_), parent)
    child.switch()
    assert received == [exit_]


def raise_(exception: BaseException) -> None:
    raise exception


def test_the_very_object_is_delivered() -> None:
    thing = object()
    g = greenlet(lambda first: to_parent(first))
    assert g.switch(thing) is thing
    other = object()
    assert g.switch(other) is other


def test_the_delivered_keywords_are_a_dict_of_their_own() -> None:
    keywords = {"a": 1}
    g = greenlet(lambda: to_parent(**keywords))
    delivered = g.switch()
    assert delivered == keywords
    assert delivered is not keywords


def test_a_return_value_goes_to_the_parent() -> None:
    assert greenlet(lambda: "value").switch() == "value"


@pytest.mark.parametrize("value", [None, (), (1,), (1, 2), {"a": 1}, [], 0])
def test_a_return_value_is_delivered_as_it_is(value: object) -> None:
    assert greenlet(lambda: value).switch() is value


def test_a_return_value_goes_to_the_parent_and_not_to_the_last_switcher() -> None:
    log: list[str] = []
    target = greenlet(lambda: "returned")

    def switcher() -> None:
        log.append("before")
        target.switch()
        log.append("never reached")

    g = greenlet(switcher)
    assert g.switch() == "returned"
    assert log == ["before"]
    assert not g.dead


def test_a_switch_returns_where_it_was_called_whatever_the_call_depth() -> None:
    main = getcurrent()

    def deep(level: int) -> list[int]:
        if level == 0:
            return [main.switch("at the bottom")]
        return [*deep(level - 1), level]

    g = greenlet(lambda: deep(30))
    assert g.switch() == "at the bottom"
    assert g.switch(0) == list(range(31))


def test_two_greenlets_hand_values_back_and_forth() -> None:
    log: list[tuple[str, int]] = []

    def ping(value: int) -> str:
        for _ in range(3):
            log.append(("ping", value))
            value = b.switch(value + 1)
        return "done"

    def pong(value: int) -> None:
        while True:
            log.append(("pong", value))
            value = a.switch(value + 1)

    a = greenlet(ping)
    b = greenlet(pong)
    assert a.switch(0) == "done"
    assert log == [
        ("ping", 0),
        ("pong", 1),
        ("ping", 2),
        ("pong", 3),
        ("ping", 4),
        ("pong", 5),
    ]


def test_a_value_travels_round_a_ring_of_greenlets() -> None:
    main = getcurrent()
    ring: list[greenlet] = []

    def member(index: int, value: int) -> None:
        while True:
            following = ring[index + 1] if index + 1 < len(ring) else main
            value = following.switch(value + 1)

    ring.extend(greenlet(functools.partial(member, index)) for index in range(50))
    for start in range(0, 200, 50):
        assert ring[0].switch(start) == start + 50


def test_locals_survive_a_hundred_thousand_switches() -> None:
    def count() -> tuple[int, int]:
        total = calls = 0
        for expected in range(100_000):
            received = to_parent(expected)
            total += received
            calls += 1
        return total, calls

    g = greenlet(count)
    value = g.switch()
    for expected in range(100_000):
        assert value == expected
        value = g.switch(1)
    assert value == (100_000, 100_000)
    assert g.dead


def test_a_bound_switch_is_an_ordinary_callable() -> None:
    def echo(value: int) -> None:
        while True:
            value = to_parent(value * 2)

    g = greenlet(echo)
    assert list(map(g.switch, range(5))) == [0, 2, 4, 6, 8]
    assert functools.partial(g.switch, 21)() == 42


def test_switch_can_be_called_through_the_type() -> None:
    assert greenlet.switch(greenlet(lambda value: value + 1), 1) == 2


def test_switch_through_the_type_refuses_what_is_no_greenlet() -> None:
    not_a_greenlet: Any = object()
    with pytest.raises(TypeError):
        greenlet.switch(not_a_greenlet)


def test_starting_with_arguments_that_run_does_not_take_raises_in_the_parent() -> None:
    g = greenlet(lambda: None)
    with pytest.raises(TypeError, match="positional argument"):
        g.switch(1)
    assert g.dead


def test_the_current_greenlet_is_the_one_that_runs() -> None:
    main = getcurrent()
    seen: list[object] = []

    def run() -> None:
        seen.append(getcurrent())
        main.switch()
        seen.append(getcurrent())

    g = greenlet(run)
    g.switch()
    assert getcurrent() is main
    g.switch()
    assert getcurrent() is main
    assert seen == [g, g]


def test_the_main_greenlet_is_one_object_per_thread() -> None:
    assert getcurrent() is getcurrent()
    assert type(getcurrent()) is greenlet
    assert getcurrent().parent is None


def test_a_value_for_a_finished_greenlet_goes_to_its_nearest_living_ancestor() -> None:
    log: list[Any] = []
    main = getcurrent()

    def ancestor() -> None:
        log.append(("ancestor", main.switch("waiting")))

    living = greenlet(ancestor)
    assert living.switch() == "waiting"
    middle = greenlet(lambda: None, living)
    dead = greenlet(lambda: None, middle)
    # Ends both without a switch to `living`, because they have other parents at that moment.
    dead.parent = middle.parent = main
    dead.switch()
    middle.switch()
    middle.parent = living
    dead.parent = middle
    assert dead.switch("for the ancestor") is None
    assert log == [("ancestor", "for the ancestor")]
    assert living.dead


def test_a_value_for_a_finished_greenlet_starts_an_ancestor_that_has_not_started() -> None:
    dead = greenlet(lambda: None)
    dead.switch()
    dead.parent = greenlet(lambda *args, **kwargs: ("started", args, kwargs))
    assert dead.switch(1, a=2) == ("started", (1,), {"a": 2})


@pytest.mark.parametrize("value", [None, 1, "text"])
def test_a_return_value_starts_a_parent_that_has_not_started(value: object) -> None:
    parent = greenlet(lambda *args: ("started", args))
    child = greenlet(lambda: value, parent)
    assert child.switch() == ("started", (value,))
    assert parent.dead


def test_the_truth_of_a_greenlet_is_whether_it_is_active() -> None:
    main = getcurrent()
    inside: list[bool] = []

    def run() -> None:
        inside.append(bool(getcurrent()))
        main.switch()

    g = greenlet(run)
    assert not g
    g.switch()
    assert g
    g.switch()
    assert not g
    assert inside == [True]
    assert main


def test_a_greenlet_is_dead_once_it_has_ended() -> None:
    main = getcurrent()
    g = greenlet(lambda: main.switch())
    assert g.dead is False
    g.switch()
    assert g.dead is False
    g.switch()
    assert g.dead is True
    assert main.dead is False


@pytest.mark.parametrize("name", ["dead"])
def test_the_state_cannot_be_written(name: str) -> None:
    g = greenlet()
    with pytest.raises(AttributeError):
        setattr(g, name, True)
    with pytest.raises(AttributeError):
        delattr(g, name)


def test_the_repr_names_the_state() -> None:
    main = getcurrent()
    shown: list[str] = []

    def run() -> None:
        shown.append(repr(getcurrent()))
        main.switch()

    g = greenlet(run)
    new = repr(g)
    g.switch()
    suspended = repr(g)
    g.switch()
    dead = repr(g)

    assert new.startswith(f"<greenlet.greenlet object at {address_of(g)} (otid=0x")
    assert " pending" in new
    assert " current" in shown[0]
    assert " active" in shown[0]
    assert " started" in shown[0]
    assert " suspended" in suspended
    assert " active" in suspended
    assert " started" in suspended
    assert " dead" in dead
    assert all(text.endswith(">") for text in (new, shown[0], suspended, dead))
    assert " main" in repr(main)
    assert " main" not in new + shown[0] + suspended + dead


def test_the_repr_names_a_subclass() -> None:
    class Named(greenlet):
        pass

    assert Named.__qualname__.rpartition(".")[2] in repr(Named())


def test_the_saved_stack_of_a_greenlet_is_positive_only_while_it_is_suspended() -> None:
    main = getcurrent()
    inside: list[int] = []

    def run() -> None:
        inside.append(getcurrent()._stack_saved)
        main.switch()

    g = greenlet(run)
    assert g._stack_saved == 0
    g.switch()
    assert isinstance(g._stack_saved, int)
    assert g._stack_saved > 0
    g.switch()
    assert g._stack_saved == 0
    assert inside == [0]


def test_the_main_greenlet_has_a_saved_stack_while_another_runs() -> None:
    main = getcurrent()
    assert main._stack_saved == 0
    assert greenlet(lambda: main._stack_saved).switch() > 0


@pytest.mark.parametrize("name", ["GreenletExit", "error", "getcurrent", "settrace", "gettrace"])
def test_the_type_carries_the_names_of_the_module(name: str) -> None:
    assert getattr(greenlet, name) is getattr(module, name)


def test_the_module_carries_its_constants() -> None:
    assert module.GREENLET_USE_GC == 1
    assert module.GREENLET_USE_TRACING == 1
    assert module.GREENLET_USE_CONTEXT_VARS == 1
    assert isinstance(module.CLOCKS_PER_SEC, int)
    assert isinstance(module.__version__, str)
    assert 'capsule object "greenlet._C_API"' in repr(module._C_API)


def test_the_types_belong_to_the_package() -> None:
    for item in (greenlet, module.error, module.GreenletExit):
        assert item.__module__ == "greenlet"
    assert greenlet.__name__ == "greenlet"
    assert issubclass(module.error, Exception)
    assert issubclass(module.GreenletExit, BaseException)
    assert not issubclass(module.GreenletExit, Exception)


def test_the_clock_of_the_optional_cleanup_is_kept_for_compatibility() -> None:
    try:
        module.enable_optional_cleanup(False)
        assert module.get_clocks_used_doing_optional_cleanup() is None
    finally:
        module.enable_optional_cleanup(True)
    assert isinstance(module.get_clocks_used_doing_optional_cleanup(), int)


def test_the_extension_module_counts_pending_cleanups_and_main_greenlets() -> None:
    from greenlet import _greenlet

    getcurrent()
    assert isinstance(_greenlet.get_pending_cleanup_count(), int)
    assert _greenlet.get_total_main_greenlets() >= 1
