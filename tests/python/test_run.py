"""`run`: given to the constructor, set, deleted, looked up at the start, gone afterwards."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from greenlet import getcurrent, greenlet, stacks
from helpers import collect, to_parent

CANNOT_SET = "run cannot be set after the start of the greenlet"


def suspended() -> greenlet:
    """A greenlet that has started and waits for one more switch."""
    g = greenlet(lambda: to_parent())
    g.switch()
    return g


def test_run_is_what_the_constructor_was_given() -> None:
    def run() -> None: ...

    assert greenlet(run).run is run
    assert greenlet(run=run).run is run


def test_run_may_be_set_before_the_start() -> None:
    g = greenlet()
    g.run = lambda: "set"
    assert g.switch() == "set"


def test_run_may_be_replaced_before_the_start() -> None:
    g = greenlet(lambda: "first")
    g.run = lambda: "second"
    assert g.switch() == "second"


def test_run_may_be_deleted_before_the_start() -> None:
    g = greenlet(lambda: None)
    del g.run
    with pytest.raises(AttributeError, match="run"):
        _ = g.run


def test_deleting_a_missing_run_changes_nothing() -> None:
    g = greenlet()
    del g.run
    assert not hasattr(g, "run")


def test_a_greenlet_without_run_does_not_start_and_stays_startable() -> None:
    g = greenlet()
    with pytest.raises(AttributeError, match=r"^run(\n|$)"):
        g.switch("lost")
    assert not g
    assert not g.dead
    g.run = lambda value: value
    assert g.switch("kept") == "kept"


def test_run_is_gone_once_the_greenlet_has_started() -> None:
    g = suspended()
    with pytest.raises(AttributeError, match=r"^run(\n|$)"):
        _ = g.run
    g.switch()
    with pytest.raises(AttributeError, match=r"^run(\n|$)"):
        _ = g.run


def test_run_is_gone_inside_the_greenlet_itself() -> None:
    assert greenlet(lambda: hasattr(getcurrent(), "run")).switch() is False


@pytest.mark.parametrize("finished", [False, True])
def test_run_cannot_be_set_or_deleted_after_the_start(finished: bool) -> None:
    g = suspended()
    if finished:
        g.switch()
    with pytest.raises(AttributeError, match=CANNOT_SET):
        g.run = lambda: None
    with pytest.raises(AttributeError, match=CANNOT_SET):
        del g.run


def test_a_subclass_may_define_run_as_a_method() -> None:
    class Doubling(greenlet):
        def run(self, value: int) -> tuple[object, int]:
            return self, value * 2

    g = Doubling()
    assert g.switch(21) == (g, 42)


def test_a_run_method_stays_readable_after_the_start() -> None:
    class Waiting(greenlet):
        def run(self) -> None:
            to_parent()

    g = Waiting()
    g.switch()
    assert g.run == g.run
    g.switch()


def test_run_given_to_a_subclass_is_overridden_by_its_method() -> None:
    class Own(greenlet):
        def run(self) -> str:
            return "method"

    assert Own(lambda: "argument").switch() == "method"


def test_run_may_be_found_through_getattr() -> None:
    class Computed(greenlet):
        def __getattribute__(self, name: str) -> Any:
            if name == "run":
                return lambda: "computed"
            return super().__getattribute__(name)

    assert Computed().switch() == "computed"


def test_a_run_that_starts_the_greenlet_when_it_is_dropped_wins_over_the_first_start() -> None:
    log: list[object] = []

    class WithMethod(greenlet):
        def run(self, *args: object) -> str:
            log.append(args)
            log.append(to_parent("from run"))
            return "finished"

    class Starting:
        def __call__(self) -> None: ...
        def __del__(self) -> None:
            log.append(started[0].switch("second start"))

    in_use = stacks.statistics().in_use
    started = [WithMethod(Starting())]  # its method comes first, and this is dropped at the start
    assert started[0].switch("first start") == "finished"
    assert log == [("second start",), "from run", "first start"]
    assert stacks.statistics().in_use == in_use


def test_an_exception_of_the_lookup_of_run_is_raised_and_the_greenlet_stays_startable() -> None:
    class Failing(greenlet):
        fail = True

        def __getattribute__(self, name: str) -> Any:
            if name == "run" and type(self).fail:
                raise LookupError("no run today")
            return super().__getattribute__(name)

    g = Failing(lambda: "ran")
    with pytest.raises(LookupError, match="no run today"):
        g.switch()
    assert not g
    assert not g.dead
    Failing.fail = False
    assert g.switch() == "ran"


def test_a_lookup_of_run_that_starts_the_greenlet_wins_over_the_first_start() -> None:
    log: list[object] = []
    main = getcurrent()

    def body(*args: object) -> str:
        log.append(("started", args))
        log.append(("then", main.switch("from body")))
        return "finished"

    class Reentrant(greenlet):
        started = False

        def __getattribute__(self, name: str) -> Any:
            if name == "run" and not Reentrant.started:
                Reentrant.started = True
                log.append(("lookup switched", self.switch("second start")))
                return lambda *args: log.append("never called")
            if name == "run":
                return body
            return super().__getattribute__(name)

    g = Reentrant()
    assert g.switch("first start") == "finished"
    assert log == [
        ("started", ("second start",)),
        ("lookup switched", "from body"),
        ("then", "first start"),
    ]


def test_init_again_before_the_start_replaces_run_and_parent() -> None:
    g = greenlet(lambda: "first")
    parent = greenlet(lambda value: ("through the parent", value))
    again: Any = g.__init__  # type: ignore[misc]
    again(lambda: "second", parent)
    assert g.parent is parent
    assert g.switch() == ("through the parent", "second")


def test_init_again_after_the_start_cannot_replace_run() -> None:
    g = suspended()
    again: Any = g.__init__  # type: ignore[misc]
    with pytest.raises(AttributeError, match=CANNOT_SET):
        again(lambda: None)
    g.switch()


def test_any_callable_will_do() -> None:
    class Callable:
        def __call__(self, value: int) -> int:
            return value + 1

        def method(self, value: int) -> int:
            return value + 2

    assert greenlet(Callable()).switch(1) == 2
    assert greenlet(Callable().method).switch(1) == 3
    assert greenlet(len).switch("four") == 4
    assert greenlet(dict).switch(a=1) == {"a": 1}
    assert isinstance(greenlet(greenlet).switch(), greenlet)


def test_what_is_not_callable_fails_at_the_start_in_the_parent() -> None:
    not_callable: Any = 5
    g = greenlet(not_callable)
    with pytest.raises(TypeError, match="not callable"):
        g.switch()
    assert g.dead


def test_run_may_be_a_switch_of_another_greenlet() -> None:
    main = getcurrent()
    other = greenlet(lambda value: main.switch(("other got", value)))
    g = greenlet(other.switch)
    assert g.switch("value") == ("other got", "value")
    assert g
    assert not g.dead
    assert other.switch(7) == 7
    assert other.dead


def test_the_constructor_refuses_what_it_does_not_know() -> None:
    create: Any = greenlet
    with pytest.raises(TypeError):
        create(lambda: None, None, None)
    with pytest.raises(TypeError):
        create(unknown=1)
    with pytest.raises(TypeError):
        create(lambda: None, parent=5)


def test_a_finished_greenlet_has_let_go_of_run() -> None:
    class Callable:
        def __call__(self) -> None: ...

    run = Callable()
    alive = weakref.ref(run)
    g = greenlet(run)
    del run
    g.switch()
    collect()
    assert alive() is None
    assert g.dead
