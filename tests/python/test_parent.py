"""`parent`: who gets the result, and which parents are allowed."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import collect, to_parent


def test_the_creator_is_the_parent() -> None:
    assert greenlet().parent is getcurrent()
    inner: list[greenlet] = []
    outer = greenlet(lambda: inner.append(greenlet()))
    outer.switch()
    assert inner[0].parent is outer


def test_the_parent_may_be_named_by_position_or_keyword() -> None:
    parent = greenlet()
    assert greenlet(lambda: None, parent).parent is parent
    assert greenlet(parent=parent).parent is parent
    assert greenlet(run=lambda: None, parent=parent).parent is parent


def test_parent_none_means_the_creator() -> None:
    assert greenlet(None, None).parent is getcurrent()


def test_a_main_greenlet_has_no_parent() -> None:
    assert getcurrent().parent is None


def test_the_parent_of_a_main_greenlet_cannot_be_set() -> None:
    main = getcurrent()
    with pytest.raises(AttributeError, match=r"^cannot set the parent of a main greenlet$"):
        main.parent = greenlet()


def test_the_parent_cannot_be_deleted() -> None:
    g = greenlet()
    with pytest.raises(AttributeError, match=r"^can't delete attribute$"):
        del g.parent
    assert g.parent is getcurrent()


@pytest.mark.parametrize("value", [None, 5, "text", object()])
def test_a_parent_must_be_a_greenlet(value: Any) -> None:
    g = greenlet()
    with pytest.raises(TypeError):
        g.parent = value
    assert g.parent is getcurrent()


def test_a_greenlet_cannot_be_its_own_parent() -> None:
    g = greenlet()
    with pytest.raises(ValueError, match=r"^cyclic parent chain\n"):
        g.parent = g


def test_parents_cannot_form_a_cycle() -> None:
    a = greenlet()
    b = greenlet(parent=a)
    c = greenlet(parent=b)
    with pytest.raises(ValueError, match=r"^cyclic parent chain\n"):
        a.parent = c
    assert a.parent is getcurrent()


def test_the_same_parent_may_be_set_again() -> None:
    g = greenlet()
    g.parent = getcurrent()
    assert g.parent is getcurrent()


def test_a_parent_set_before_the_start_receives_the_result() -> None:
    parent = greenlet(lambda value: ("parent", value))
    child = greenlet(lambda: "result")
    child.parent = parent
    assert child.switch() == ("parent", "result")


def test_a_parent_set_while_suspended_receives_the_result() -> None:
    child = greenlet(lambda: to_parent())
    child.switch()
    child.parent = greenlet(lambda value: ("adopted", value))
    assert child.switch("result") == ("adopted", "result")


def test_a_parent_set_by_the_running_greenlet_receives_the_result() -> None:
    parent = greenlet(lambda value: ("adopted", value))

    def run() -> str:
        getcurrent().parent = parent
        return "result"

    assert greenlet(run).switch() == ("adopted", "result")


def test_a_parent_of_a_finished_greenlet_may_be_set() -> None:
    g = greenlet(lambda: None)
    g.switch()
    g.parent = greenlet(lambda value: ("received", value))
    assert g.switch(1) == ("received", 1)


def test_an_exception_goes_up_to_the_first_living_ancestor() -> None:
    log: list[str] = []

    def ancestor() -> str:
        try:
            to_parent()
        except LookupError:
            log.append("caught")
        return "ancestor done"

    living = greenlet(ancestor)
    living.switch()
    dead = greenlet(lambda: None)
    dead.switch()
    dead.parent = living

    def failing() -> None:
        raise LookupError

    assert greenlet(failing, dead).switch() == "ancestor done"
    assert log == ["caught"]


def test_an_exception_rises_through_every_parent_that_does_not_catch_it() -> None:
    def failing() -> None:
        raise LookupError("from the bottom")

    g = greenlet(failing)
    chain = [g]
    for _ in range(5):
        # Each parent starts its child, so all of them are active when the last one fails.
        g = greenlet(g.switch)
        chain[-1].parent = g
        chain.append(g)
    with pytest.raises(LookupError, match="from the bottom"):
        g.switch()
    assert all(member.dead for member in chain)


def test_a_chain_of_parents_passes_the_value_up() -> None:
    top = greenlet(lambda value: value + 1)
    middle = greenlet(lambda value: value + 1, top)
    bottom = greenlet(lambda value: value + 1, middle)
    assert bottom.switch(0) == 3
    assert [g.dead for g in (bottom, middle, top)] == [True, True, True]


def test_a_chain_of_two_thousand_finished_parents_is_walked() -> None:
    g = getcurrent()
    chain = []
    for _ in range(2_000):
        g = greenlet(lambda value: value, g)
        chain.append(g)
    assert g.switch("value") == "value"
    assert all(member.dead for member in chain)
    assert g.switch("again") == "again"


def test_greenlet_exit_raised_by_a_child_arrives_as_a_value() -> None:
    leaving = GreenletExit("bye")

    def run() -> None:
        raise leaving

    assert greenlet(run).switch() is leaving


def test_a_parent_keeps_no_reference_to_its_children() -> None:
    child = greenlet()
    alive = weakref.ref(child)
    del child
    collect()
    assert alive() is None


def test_a_child_keeps_its_parent_alive() -> None:
    parent = greenlet()
    alive = weakref.ref(parent)
    child = greenlet(parent=parent)
    del parent
    assert alive() is child.parent
