"""The exception being handled belongs to a greenlet: sys.exc_info(), context and traceback."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import to_parent


def handled() -> BaseException | None:
    return sys.exc_info()[1]


def test_a_new_greenlet_handles_no_exception() -> None:
    try:
        raise ValueError
    except ValueError:
        assert greenlet(handled).switch() is None


def test_the_exception_handled_by_a_child_is_not_seen_by_its_parent() -> None:
    def run() -> None:
        try:
            raise ValueError
        except ValueError:
            to_parent()

    g = greenlet(run)
    g.switch()
    assert handled() is None
    g.switch()
    assert handled() is None


def test_every_greenlet_finds_its_own_exception_again() -> None:
    def run(name: str) -> list[str]:
        try:
            raise ValueError(name)
        except ValueError:
            seen = []
            for _ in range(3):
                to_parent()
                seen.append(str(handled()))
        assert handled() is None
        return seen

    family = {name: greenlet(run) for name in "abc"}
    for name, g in family.items():
        g.switch(name)
    try:
        raise LookupError("of the test")
    except LookupError as own:
        for _ in range(2):
            for g in family.values():
                g.switch()
                assert handled() is own
    results = {name: g.switch() for name, g in family.items()}
    assert results == {name: [name] * 3 for name in "abc"}


def test_nested_handlers_are_left_in_order_across_switches() -> None:
    def run() -> list[str]:
        seen = []
        try:
            raise ValueError("outer")
        except ValueError:
            try:
                raise KeyError("inner")
            except KeyError:
                to_parent()
                seen.append(repr(handled()))
            to_parent()
            seen.append(repr(handled()))
        to_parent()
        seen.append(repr(handled()))
        return seen

    g = greenlet(run)
    g.switch()
    for _ in range(2):
        try:
            raise LookupError
        except LookupError:
            g.switch()
    assert g.switch() == ["KeyError('inner')", "ValueError('outer')", "None"]


def test_a_bare_raise_after_a_switch_raises_the_greenlets_own_exception() -> None:
    def run() -> None:
        try:
            raise ValueError("own")
        except ValueError:
            to_parent()
            raise

    g = greenlet(run)
    g.switch()
    with pytest.raises(ValueError, match="own"):
        try:
            raise LookupError("of the parent")
        except LookupError:
            g.switch()
    assert g.dead


def test_a_bare_raise_in_a_new_greenlet_has_nothing_to_raise() -> None:
    def run() -> None:
        raise

    with pytest.raises(RuntimeError, match="No active exception"):
        try:
            raise ValueError
        except ValueError:
            greenlet(run).switch()


def test_an_exception_raised_in_a_handler_after_a_switch_has_the_right_context() -> None:
    def run() -> None:
        try:
            raise ValueError("first")
        except ValueError:
            to_parent()
            raise KeyError("second")  # noqa: B904 - the implicit context is the point

    g = greenlet(run)
    g.switch()
    with pytest.raises(KeyError) as caught:
        g.switch()
    assert repr(caught.value.__context__) == "ValueError('first')"


def test_an_exception_that_a_greenlet_raises_has_no_context_from_its_parent() -> None:
    def run() -> None:
        raise KeyError("of the child")

    g = greenlet(run)
    contexts: list[BaseException | None] = []

    def call() -> None:
        try:
            raise ValueError("of the caller")
        except ValueError:
            try:
                g.switch()
            except KeyError as error:
                contexts.append(error.__context__)

    call()
    assert contexts == [None]


def test_a_thrown_exception_takes_its_context_from_neither_side() -> None:
    contexts: list[BaseException | None] = []

    def run() -> None:
        try:
            raise ValueError("handled there")
        except ValueError:
            try:
                to_parent()
            except KeyError as error:
                contexts.append(error.__context__)

    g = greenlet(run)
    g.switch()
    try:
        raise LookupError("handled here")
    except LookupError:
        g.throw(KeyError)
    assert contexts == [None]


def test_an_explicit_cause_is_kept_across_a_switch() -> None:
    cause = ValueError("cause")

    def run() -> None:
        raise KeyError from cause

    with pytest.raises(KeyError) as caught:
        greenlet(run).switch()
    assert caught.value.__cause__ is cause


def test_the_very_exception_arrives_in_the_parent() -> None:
    problem = ValueError()

    def run() -> None:
        raise problem

    with pytest.raises(ValueError) as caught:
        greenlet(run).switch()
    assert caught.value is problem


def test_an_exception_in_a_finally_block_that_switches_goes_on_afterwards() -> None:
    log: list[str] = []

    def run() -> None:
        try:
            raise ValueError("on its way")
        finally:
            log.append(repr(handled()))
            to_parent()
            log.append(repr(handled()))

    g = greenlet(run)
    g.switch()
    assert handled() is None
    with pytest.raises(ValueError, match="on its way"):
        g.switch()
    assert log == ["ValueError('on its way')"] * 2


def test_a_with_block_whose_exit_switches_still_suppresses() -> None:
    class Suppressing:
        def __enter__(self) -> None:
            to_parent("entering")

        def __exit__(self, *exc_info: object) -> bool:
            to_parent("leaving")
            return True

    def run() -> str:
        with Suppressing():
            raise ValueError
        return "suppressed"

    g = greenlet(run)
    assert [g.switch(), g.switch(), g.switch()] == ["entering", "leaving", "suppressed"]


def test_exception_groups_are_split_across_switches() -> None:
    log: list[str] = []

    def run() -> None:
        try:
            raise ExceptionGroup("group", [ValueError("a"), KeyError("b"), TypeError("c")])
        except* ValueError as group:
            to_parent()
            log.append(repr(group.exceptions))
        except* KeyError as group:
            to_parent()
            log.append(repr(group.exceptions))

    g = greenlet(run)
    g.switch()
    g.switch()
    with pytest.raises(ExceptionGroup) as caught:
        g.switch()
    assert log == ["(ValueError('a'),)", "(KeyError('b'),)"]
    assert [repr(error) for error in caught.value.exceptions] == ["TypeError('c')"]


def test_a_traceback_lists_the_line_of_the_switch_and_of_the_fault() -> None:
    def failing() -> None:
        raise LookupError("marked")

    try:
        greenlet(failing).switch()
    except LookupError as error:
        lines = [line.line for line in traceback.extract_tb(error.__traceback__)]
    assert lines == ["greenlet(failing).switch()", 'raise LookupError("marked")']


def test_an_exception_that_passes_twenty_greenlets_collects_every_frame() -> None:
    def run(level: int) -> None:
        if level == 0:
            raise LookupError
        greenlet(run).switch(level - 1)

    with pytest.raises(LookupError) as caught:
        greenlet(run).switch(20)
    names = [line.name for line in traceback.extract_tb(caught.value.__traceback__)]
    assert names[1:] == ["run"] * 21


def test_handlers_in_a_hundred_greenlets_do_not_mix() -> None:
    main = getcurrent()

    def run(index: int) -> Any:
        try:
            raise ValueError(index)
        except ValueError:
            for _ in range(10):
                main.switch()
                error = handled()
                assert isinstance(error, ValueError)
                assert error.args == (index,)
            return index

    family = [greenlet(run) for _ in range(100)]
    for index, g in enumerate(family):
        g.switch(index)
    for _ in range(9):
        for g in family:
            g.switch()
    assert [g.switch() for g in family] == list(range(100))


def test_the_handled_exception_of_a_generator_stays_with_the_generator() -> None:
    def generator() -> Any:
        try:
            raise ValueError("in the generator")
        except ValueError:
            to_parent()
            yield repr(handled())

    def run() -> tuple[str, object]:
        return next(generator()), handled()

    g = greenlet(run)
    g.switch()
    try:
        raise LookupError
    except LookupError:
        assert g.switch() == ("ValueError('in the generator')", None)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration, MemoryError])
def test_any_exception_rises_to_the_parent(kind: type[BaseException]) -> None:
    def run() -> None:
        raise kind("risen")

    with pytest.raises(kind, match="risen"):
        greenlet(run).switch()
