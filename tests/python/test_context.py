"""contextvars: every greenlet runs in a context of its own."""

from __future__ import annotations

import contextvars
import decimal
import threading
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import to_parent

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


@pytest.fixture(autouse=True)
def in_a_fresh_context() -> Any:
    token = variable.set("of the test")
    yield
    variable.reset(token)


def test_a_new_greenlet_starts_with_an_empty_context() -> None:
    assert greenlet(variable.get).switch() == "default"


def test_what_a_greenlet_sets_is_not_seen_by_its_parent() -> None:
    greenlet(lambda: variable.set("of the child")).switch()
    assert variable.get() == "of the test"


def test_every_greenlet_keeps_its_own_value_across_switches() -> None:
    def run(value: str) -> list[str]:
        variable.set(value)
        seen = []
        for _ in range(3):
            to_parent()
            seen.append(variable.get())
        return seen

    family = {name: greenlet(run) for name in "abc"}
    for name, g in family.items():
        g.switch(name)
    for _ in range(2):
        for g in family.values():
            g.switch()
            assert variable.get() == "of the test"
    assert {name: g.switch() for name, g in family.items()} == {
        "a": ["a"] * 3,
        "b": ["b"] * 3,
        "c": ["c"] * 3,
    }


def test_the_context_of_a_new_greenlet_is_none() -> None:
    assert greenlet().gr_context is None


def test_a_context_set_before_the_start_is_the_one_it_runs_in() -> None:
    context = contextvars.Context()
    context.run(variable.set, "prepared")
    g = greenlet(lambda: (variable.get(), variable.set("changed"), getcurrent().gr_context))
    g.gr_context = context
    assert g.gr_context is context
    value, _, inside = g.switch()
    assert value == "prepared"
    assert inside is context
    assert context[variable] == "changed"


def test_a_copy_of_the_parents_context_can_be_handed_on() -> None:
    g = greenlet(variable.get)
    g.gr_context = contextvars.copy_context()
    assert g.switch() == "of the test"


def test_a_greenlet_that_sets_a_variable_gets_a_context() -> None:
    def run() -> object:
        variable.set("of the child")
        return getcurrent().gr_context

    context = greenlet(run).switch()
    assert isinstance(context, contextvars.Context)
    assert context[variable] == "of the child"


def test_the_context_of_a_suspended_greenlet_can_be_read() -> None:
    def run() -> None:
        variable.set("of the child")
        to_parent()

    g = greenlet(run)
    g.switch()
    assert g.gr_context is not None
    assert g.gr_context[variable] == "of the child"
    assert g.gr_context.run(variable.get) == "of the child"


def test_the_context_of_a_suspended_greenlet_can_be_replaced() -> None:
    def run() -> str:
        variable.set("of the child")
        to_parent()
        return variable.get()

    g = greenlet(run)
    g.switch()
    g.gr_context = contextvars.Context()
    g.gr_context.run(variable.set, "replaced")
    assert g.switch() == "replaced"


def test_none_stands_for_an_empty_context() -> None:
    def run() -> str:
        variable.set("of the child")
        to_parent()
        return variable.get()

    g = greenlet(run)
    g.switch()
    g.gr_context = None
    assert g.switch() == "default"


def test_the_running_greenlet_may_replace_its_own_context() -> None:
    context = contextvars.Context()
    context.run(variable.set, "replaced")

    def run() -> tuple[str, str]:
        variable.set("of the child")
        before = variable.get()
        getcurrent().gr_context = context
        return before, variable.get()

    assert greenlet(run).switch() == ("of the child", "replaced")


def test_two_greenlets_may_share_one_context_object() -> None:
    context = contextvars.Context()

    def run(value: str) -> str:
        variable.set(value)
        to_parent()
        return variable.get()

    a, b = greenlet(run), greenlet(run)
    a.gr_context = b.gr_context = context
    a.switch("a")
    b.switch("b")
    assert a.switch() == "b"
    assert b.switch() == "b"


@pytest.mark.parametrize("value", [5, "text", {}, object()])
def test_the_context_must_be_a_context_or_none(value: Any) -> None:
    g = greenlet()
    message = "^greenlet context must be a contextvars.Context or None$"
    with pytest.raises(TypeError, match=message):
        g.gr_context = value
    assert g.gr_context is None


def test_the_context_cannot_be_deleted() -> None:
    g = greenlet()
    with pytest.raises(AttributeError, match="^can't delete context attribute$"):
        del g.gr_context


def test_the_context_of_a_greenlet_running_in_another_thread_is_out_of_reach() -> None:
    holder: list[greenlet] = []
    running, looked = threading.Event(), threading.Event()

    def run() -> None:
        running.set()
        looked.wait()

    def thread_body() -> None:
        g = greenlet(run)
        holder.append(g)
        g.switch()

    thread = threading.Thread(target=thread_body)
    thread.start()
    running.wait()
    try:
        with pytest.raises(ValueError, match="running in a different thread"):
            _ = holder[0].gr_context
        with pytest.raises(ValueError, match="running in a different thread"):
            holder[0].gr_context = None
    finally:
        looked.set()
        thread.join()


def test_context_run_that_switches_inside_keeps_its_context_to_its_greenlet() -> None:
    context = contextvars.copy_context()

    def inside() -> str:
        variable.set("inside run")
        to_parent(variable.get())
        return variable.get()

    def run() -> tuple[str, str]:
        return context.run(inside), variable.get()

    g = greenlet(run)
    assert g.switch() == "inside run"
    assert variable.get() == "of the test"
    assert g.switch() == ("inside run", "default")


def test_a_context_entered_in_a_suspended_greenlet_cannot_be_entered_again() -> None:
    context = contextvars.copy_context()
    g = greenlet(lambda: context.run(to_parent))
    g.switch()
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(variable.get)
    g.switch()
    assert context.run(variable.get) == "of the test"


def test_a_token_of_one_greenlet_is_refused_in_another() -> None:
    token = greenlet(lambda: variable.set("of the child")).switch()
    with pytest.raises(ValueError, match="different Context"):
        variable.reset(token)


def test_variables_read_in_turns_are_not_served_from_the_cache_of_another_greenlet() -> None:
    # ContextVar.get() caches by thread and context version. So a switch must change the version.
    main = getcurrent()

    def run(value: str) -> None:
        variable.set(value)
        while True:
            assert variable.get() == value
            main.switch()

    a, b = greenlet(run), greenlet(run)
    for _ in range(1_000):
        a.switch("a")
        assert variable.get() == "of the test"
        b.switch("b")
        assert variable.get() == "of the test"


def test_the_decimal_context_belongs_to_a_greenlet() -> None:
    def run(precision: int) -> tuple[decimal.Decimal, ...]:
        decimal.getcontext().prec = precision
        to_parent()
        first = decimal.Decimal(1) / 3
        to_parent()
        return first, decimal.Decimal(2) / 3

    here = decimal.getcontext().prec
    a, b = greenlet(run), greenlet(run)
    for g, precision in ((a, 3), (b, 5)):
        g.switch(precision)
    a.switch()
    b.switch()
    assert a.switch() == (decimal.Decimal("0.333"), decimal.Decimal("0.667"))
    assert b.switch() == (decimal.Decimal("0.33333"), decimal.Decimal("0.66667"))
    assert decimal.getcontext().prec == here
