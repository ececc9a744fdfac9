"""throw(): its arguments, and where the exception appears."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import to_parent


class Problem(Exception):
    pass


def catching(log: list[BaseException]) -> greenlet:
    """A suspended greenlet that logs the exception thrown into it and returns "caught"."""

    def run() -> str:
        try:
            to_parent()
        except BaseException as caught:
            log.append(caught)
        return "caught"

    g = greenlet(run)
    g.switch()
    return g


def suspended() -> greenlet:
    g = greenlet(lambda: to_parent())
    g.switch()
    return g


def finished() -> greenlet:
    g = greenlet(lambda: None)
    g.switch()
    return g


# The arguments of throw(); the type and args of the exception that arrives.
FORMS: list[tuple[tuple[Any, ...], type[BaseException], tuple[Any, ...]]] = [
    ((), GreenletExit, ()),
    ((GreenletExit,), GreenletExit, ()),
    ((GreenletExit, "why"), GreenletExit, ("why",)),
    ((Problem,), Problem, ()),
    ((Problem, "text"), Problem, ("text",)),
    ((Problem, ("a", "b")), Problem, ("a", "b")),
    ((Problem, None), Problem, ()),
    ((Problem, None, None), Problem, ()),
    ((Problem("instance"),), Problem, ("instance",)),
    ((Problem("instance"), None), Problem, ("instance",)),
    ((Problem, Problem("instance")), Problem, ("instance",)),
    ((KeyboardInterrupt,), KeyboardInterrupt, ()),
]


@pytest.mark.parametrize(("args", "kind", "values"), FORMS)
def test_a_waiting_greenlet_sees_the_exception_where_it_waits(
    args: tuple[Any, ...], kind: type[BaseException], values: tuple[Any, ...]
) -> None:
    log: list[BaseException] = []
    assert catching(log).throw(*args) == "caught"
    assert [(type(error), error.args) for error in log] == [(kind, values)]


def test_a_thrown_instance_arrives_as_itself() -> None:
    problem = Problem()
    log: list[BaseException] = []
    catching(log).throw(problem)
    assert log == [problem]


def test_an_exception_nobody_catches_comes_back_to_the_parent() -> None:
    g = suspended()
    with pytest.raises(Problem, match="through"):
        g.throw(Problem("through"))
    assert g.dead


def test_greenlet_exit_that_nobody_catches_is_returned_to_the_parent() -> None:
    g = suspended()
    leaving = GreenletExit("value")
    assert g.throw(leaving) is leaving
    assert g.dead


def test_a_subclass_of_greenlet_exit_is_returned_as_well() -> None:
    class Leaving(GreenletExit):
        pass

    assert isinstance(suspended().throw(Leaving), Leaving)


def test_an_exception_goes_to_the_parent_and_not_to_the_thrower() -> None:
    log: list[object] = []
    main = getcurrent()

    def parent_body() -> str:
        try:
            to_parent()
        except Problem as problem:
            log.append(str(problem))
        return "parent done"

    parent = greenlet(parent_body)
    parent.switch()
    child = greenlet(lambda: main.switch(), parent)
    child.switch()
    assert child.throw(Problem("for the parent")) == "parent done"
    assert log == ["for the parent"]


BAD_ARGUMENTS: list[tuple[tuple[Any, ...], str]] = [
    ((1,), "exceptions must be classes, or instances, not int"),
    (("text",), "exceptions must be classes, or instances, not str"),
    ((object,), "exceptions must be classes, or instances, not type"),
    ((Problem(), 1), "instance exception may not have a separate value"),
    ((Problem, 1, 2), "throw() third argument must be a traceback object"),
]


@pytest.mark.parametrize(("args", "message"), BAD_ARGUMENTS)
def test_wrong_arguments_are_refused_and_the_greenlet_waits_on(
    args: tuple[Any, ...], message: str
) -> None:
    g = suspended()
    with pytest.raises(TypeError) as caught:
        g.throw(*args)
    assert str(caught.value) == message
    assert g
    assert g.switch("still there") == "still there"


@pytest.mark.parametrize(("args", "message"), BAD_ARGUMENTS)
def test_wrong_arguments_leave_a_new_greenlet_startable(
    args: tuple[Any, ...], message: str
) -> None:
    g = greenlet(lambda: "ran")
    with pytest.raises(TypeError):
        g.throw(*args)
    assert g.switch() == "ran"


def test_more_than_three_arguments_are_refused() -> None:
    throw: Any = suspended().throw
    with pytest.raises(TypeError):
        throw(Problem, None, None, None)


def test_an_exception_class_whose_constructor_fails_raises_that_failure() -> None:
    class UnmakeableError(Exception):
        def __init__(self) -> None:
            raise LookupError("constructor")

    g = suspended()
    with pytest.raises(LookupError, match="constructor"):
        g.throw(UnmakeableError)


def test_throwing_into_a_new_greenlet_ends_it_and_raises_in_the_parent() -> None:
    started: list[bool] = []
    g = greenlet(lambda: started.append(True))
    with pytest.raises(Problem, match="early"):
        g.throw(Problem("early"))
    assert g.dead
    assert not g
    assert started == []


def test_throwing_greenlet_exit_into_a_new_greenlet_ends_it_and_returns_it() -> None:
    g = greenlet(lambda: None)
    leaving = GreenletExit("early")
    assert g.throw(leaving) is leaving
    assert g.dead


def test_throwing_into_a_chain_of_new_greenlets_ends_them_all() -> None:
    top = greenlet(lambda: None)
    middle = greenlet(lambda: None, top)
    bottom = greenlet(lambda: None, middle)
    with pytest.raises(Problem):
        bottom.throw(Problem)
    assert [g.dead for g in (bottom, middle, top)] == [True, True, True]


def test_throwing_into_a_finished_greenlet_raises_in_its_nearest_living_ancestor() -> None:
    with pytest.raises(Problem, match="late"):
        finished().throw(Problem("late"))

    log: list[BaseException] = []
    waiting = catching(log)
    dead = finished()
    dead.parent = waiting
    assert dead.throw(Problem("for the ancestor")) == "caught"
    assert [str(error) for error in log] == ["for the ancestor"]


def test_throwing_greenlet_exit_into_a_finished_greenlet_returns_it() -> None:
    leaving = GreenletExit("late")
    assert finished().throw(leaving) is leaving
    assert isinstance(finished().throw(), GreenletExit)


def test_throwing_into_oneself_raises_at_once() -> None:
    with pytest.raises(Problem, match="own"):
        getcurrent().throw(Problem("own"))
    with pytest.raises(GreenletExit):
        getcurrent().throw()


def test_throwing_greenlet_exit_into_oneself_ends_the_greenlet_with_it_as_value() -> None:
    leaving = GreenletExit()
    reached: list[str] = []

    def run() -> None:
        getcurrent().throw(leaving)
        reached.append("after")

    assert greenlet(run).switch() is leaving
    assert reached == []


def test_a_child_can_throw_into_its_waiting_parent() -> None:
    main = getcurrent()
    g = greenlet(lambda: main.throw(Problem("from below")))
    with pytest.raises(Problem, match="from below"):
        g.switch()
    assert not g.dead


def test_a_greenlet_may_answer_an_exception_and_go_on_waiting() -> None:
    def run() -> str:
        answer = "ready"
        for _ in range(3):
            try:
                to_parent(answer)
            except Problem as problem:
                answer = f"caught {problem}"
        return answer

    g = greenlet(run)
    assert g.switch() == "ready"
    assert g.throw(Problem(1)) == "caught 1"
    assert g.throw(Problem(2)) == "caught 2"
    assert g.throw(Problem(3)) == "caught 3"
    assert g.dead


def test_a_given_traceback_is_the_end_of_the_one_that_arrives() -> None:
    def somewhere_else() -> TracebackType:
        try:
            raise Problem
        except Problem:
            traceback = sys.exc_info()[2]
            assert traceback is not None
            return traceback

    given = somewhere_else()
    log: list[BaseException] = []
    catching(log).throw(Problem, Problem("with history"), given)
    names = []
    step = log[0].__traceback__
    while step is not None:
        names.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert names == ["run", "to_parent", "somewhere_else"]


def test_throwing_runs_the_finally_blocks_of_the_greenlet() -> None:
    log: list[str] = []

    def run() -> None:
        try:
            try:
                to_parent()
            finally:
                log.append("inner")
        finally:
            log.append("outer")

    g = greenlet(run)
    g.switch()
    g.throw()
    assert log == ["inner", "outer"]


def test_throw_passes_through_generators_and_c_callers() -> None:
    main = getcurrent()

    def generator() -> Any:
        yield main.switch()

    g = greenlet(lambda: sorted([1, 2], key=lambda item: next(generator())))
    g.switch()
    with pytest.raises(Problem):
        g.throw(Problem)
    assert g.dead
