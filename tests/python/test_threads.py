"""Greenlets belong to the thread that started them: what other threads may see and do with them."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from greenlet import _greenlet, error, getcurrent, greenlet
from helpers import (
    address_of,
    in_thread,
    parallelize,
    run_clean,
    to_parent,
)

DIFFERENT = "^Cannot switch to a different thread\n"
EXITED = r"^cannot switch to a different thread \(which happens to have exited\)(\n|$)"


@contextlib.contextmanager
def another_thread() -> Iterator[dict[str, greenlet]]:
    """A thread that waits, and greenlets of it in each state."""
    family: dict[str, greenlet] = {}
    made, leave = threading.Event(), threading.Event()

    def body() -> None:
        suspended = greenlet(to_parent)
        suspended.switch()
        finished = greenlet(lambda: None)
        finished.switch()
        family.update(
            main=getcurrent(), suspended=suspended, new=greenlet(lambda: None), finished=finished
        )
        made.set()
        leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    made.wait()
    try:
        yield family
    finally:
        leave.set()
        thread.join()


def left_by_an_ended_thread() -> dict[str, greenlet]:
    with another_thread() as family:
        pass
    return family


STATES = ["main", "suspended", "new", "finished"]


def test_every_thread_has_a_main_greenlet_of_its_own() -> None:
    mains = parallelize(lambda index: getcurrent())
    assert len({id(main) for main in mains}) == 4
    assert getcurrent() not in mains
    assert all(main.parent is None for main in mains)


def test_a_greenlet_of_a_thread_has_its_main_greenlet_as_parent() -> None:
    assert in_thread(lambda: greenlet().parent is getcurrent())


@pytest.mark.parametrize("state", STATES)
def test_switching_to_a_greenlet_of_another_thread_is_an_error(state: str) -> None:
    with another_thread() as family:
        with pytest.raises(error, match=DIFFERENT):
            family[state].switch("value")
        with pytest.raises(error, match=DIFFERENT):
            family[state].throw(KeyError)
    assert getcurrent().parent is None


def test_the_error_names_the_main_greenlets_of_both_threads() -> None:
    with another_thread() as family:
        with pytest.raises(error) as caught:
            family["suspended"].switch()
        first, *following = str(caught.value).splitlines()
        assert first == "Cannot switch to a different thread"
        assert len(following) == 2
        assert address_of(getcurrent()) in following[0]
        assert address_of(family["main"]) in following[1]


def test_a_refused_switch_leaves_the_greenlet_as_it_was() -> None:
    log: list[Any] = []
    holder: list[greenlet] = []
    made, refused = threading.Event(), threading.Event()

    def body() -> None:
        g = greenlet(lambda: log.append(to_parent()))
        g.switch()
        holder.append(g)
        made.set()
        refused.wait()
        g.switch("from its own thread")

    thread = threading.Thread(target=body)
    thread.start()
    made.wait()
    with pytest.raises(error):
        holder[0].switch("from another thread")
    refused.set()
    thread.join()
    assert log == ["from its own thread"]


@pytest.mark.parametrize("state", STATES)
def test_switching_to_a_greenlet_of_an_ended_thread_is_an_error(state: str) -> None:
    family = left_by_an_ended_thread()
    with pytest.raises(error, match=EXITED):
        family[state].switch("value")
    with pytest.raises(error, match=EXITED):
        family[state].throw(KeyError)


def test_the_started_greenlets_of_an_ended_thread_are_dead_its_main_greenlet_too() -> None:
    family = left_by_an_ended_thread()
    assert {state: g.dead for state, g in family.items()} == {
        "main": True,
        "suspended": True,
        "new": False,
        "finished": True,
    }
    assert not any(family.values())


def test_the_repr_says_that_the_thread_has_exited() -> None:
    family = left_by_an_ended_thread()
    for state in ("main", "suspended"):
        assert " (thread exited) dead" in repr(family[state])


def test_greenlets_of_an_ended_thread_have_no_frame_and_no_stack() -> None:
    for g in left_by_an_ended_thread().values():
        assert g.gr_frame is None
        assert g._stack_saved == 0


def test_every_attribute_of_another_threads_greenlets_can_be_read() -> None:
    with another_thread() as family:
        assert {state: bool(g) for state, g in family.items()} == {
            "main": True,
            "suspended": True,
            "new": False,
            "finished": False,
        }
        assert family["suspended"].gr_frame is not None
        assert family["suspended"]._stack_saved > 0
        assert family["suspended"].gr_context is None
        assert family["suspended"].parent is family["main"]
        assert all(repr(g) for g in family.values())


def test_a_parent_in_another_thread_may_be_set_and_switching_then_fails() -> None:
    with another_thread() as family:
        g = greenlet(lambda: None)
        g.parent = family["new"]
        assert g.parent is family["new"]
        with pytest.raises(error, match=DIFFERENT):
            g.switch()
        assert not g.dead


def test_a_started_greenlet_cannot_move_below_another_thread() -> None:
    g = greenlet(to_parent)
    g.switch()
    with another_thread() as family, pytest.raises(ValueError, match="different thread"):
        g.parent = family["suspended"]
    assert g.parent is getcurrent()
    g.switch()


def test_an_unstarted_greenlet_belongs_to_the_thread_of_its_parent() -> None:
    g = greenlet(lambda: "ran")
    with pytest.raises(error, match=DIFFERENT):
        in_thread(g.switch)
    assert g.switch() == "ran"


def test_an_unstarted_greenlet_may_be_given_a_parent_in_the_thread_that_starts_it() -> None:
    g = greenlet(lambda: "ran there")

    def start() -> Any:
        g.parent = getcurrent()
        return g.switch()

    assert in_thread(start) == "ran there"
    assert g.dead


def test_a_living_thread_counts_among_the_main_greenlets() -> None:
    before = _greenlet.get_total_main_greenlets()
    with another_thread():
        assert _greenlet.get_total_main_greenlets() == before + 1


def test_locks_are_held_by_the_thread_whatever_greenlet_took_them() -> None:
    lock = threading.RLock()

    def run() -> None:
        with lock:
            to_parent()

    g = greenlet(run)
    g.switch()
    assert lock.acquire(blocking=False)
    lock.release()
    assert in_thread(lambda: lock.acquire(blocking=False)) is False
    g.switch()
    assert in_thread(lambda: lock.acquire(blocking=False)) is True


def test_thread_locals_are_those_of_the_thread() -> None:
    local = threading.local()
    local.value = "of the main thread"
    assert greenlet(lambda: local.value).switch() == "of the main thread"
    assert in_thread(lambda: greenlet(lambda: hasattr(local, "value")).switch()) is False


def test_a_greenlet_may_start_and_join_a_thread() -> None:
    def run() -> object:
        return in_thread(lambda: greenlet(lambda: "from below").switch())

    assert greenlet(run).switch() == "from below"


def test_a_finalizer_may_use_the_first_greenlets_of_a_thread() -> None:
    # Before 3.12 any allocation may collect, the allocation of the thread's main greenlet, too.
    run_clean(
        """
        import gc, threading
        from greenlet import getcurrent, greenlet

        class Cycle:
            def __init__(self):
                self.cycle = self

            def __del__(self):
                seen.append(getcurrent())
                started.append(greenlet(getcurrent().switch))
                started[-1].switch()

        def body():
            gc.disable()
            Cycle()
            gc.set_threshold(1)
            gc.enable()
            main = getcurrent()
            gc.set_threshold(0)
            gc.collect()
            assert seen == [main], (seen, main)
            assert not started[0].dead and started[0].switch(5) == 5

        seen, started, failures = [], [], []
        threading.excepthook = lambda args: failures.append(args.exc_value)
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert not failures, failures
        """
    )


# --- what another thread sees, and may prepare ----------------------------------------------------

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE")


class Named(greenlet):
    """Has a dict."""

    name: str


def raised_in_thread(kind: type[Exception], function: Callable[[], object]) -> str:
    """Call `function` in another thread, where it must raise; return the text."""

    def call() -> str:
        with pytest.raises(kind) as caught:
            function()
        return str(caught.value)

    return in_thread(call)


class Owner:
    """A thread that runs in a greenlet of its own until `leave` is set."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.leave = threading.Event()
        self.g = Named(self._body)
        self.thread = threading.Thread(target=self._work)
        self.thread.start()
        self.running.wait()

    def _body(self) -> None:
        self.running.set()
        self.leave.wait()

    def _work(self) -> None:
        self.g.parent = getcurrent()
        self.g.switch()


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    try:
        yield owner
    finally:
        owner.leave.set()
        owner.thread.join()


def test_another_thread_sees_all_of_a_suspended_greenlet() -> None:
    held = object()

    def inner(local: object) -> None:
        to_parent()

    def body() -> None:
        inner(held)

    g = Named(body)
    g.name = "name"
    g.switch()

    def look() -> None:
        frame = g.gr_frame
        while frame is not None and frame.f_code is not inner.__code__:
            frame = frame.f_back
        assert frame is not None
        assert frame.f_locals["local"] is held
        assert frame.f_back is not None and frame.f_back.f_code is body.__code__
        assert frame.f_back.f_back is None
        assert (g.dead, bool(g), g.name, g.__dict__) == (False, True, "name", {"name": "name"})
        assert g._stack_saved > 0
        assert " suspended active started" in repr(g)
        assert g.parent is main
        assert any(referent is main for referent in gc.get_referents(g))
        with pytest.raises(AttributeError, match=r"^run$"):
            _ = g.run
        with pytest.raises(AttributeError, match="run cannot be set after the start"):
            g.run = body
        for serialize in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                serialize(g)

    main = getcurrent()
    in_thread(look)
    g.switch()
    assert g.dead


def test_another_thread_sees_that_a_greenlet_runs(owner: Owner) -> None:
    g = owner.g
    assert (g.dead, bool(g), g.gr_frame, g._stack_saved) == (False, True, None, 0)
    assert "active started" in repr(g) and " current" not in repr(g)
    with pytest.raises(ValueError, match="running in a different thread"):
        _ = g.gr_context
    with pytest.raises(ValueError, match="running in a different thread"):
        g.gr_context = None
    for leave in (g.switch, g.throw):
        with pytest.raises(error, match="^Cannot switch to a different thread\n"):
            leave()
    with pytest.raises(ValueError, match="parent cannot be on a different thread"):
        g.parent = getcurrent()


def test_another_thread_may_prepare_a_greenlet_that_has_not_started() -> None:
    g = Named(None)

    def prepare() -> None:
        context = contextvars.copy_context()
        context.run(VARIABLE.set, 5)
        g.gr_context = context
        assert g.gr_context is context
        g.run = VARIABLE.get
        g.name = "prepared"
        assert "pending" in repr(g)

    in_thread(prepare)
    assert g.switch() == 5
    assert g.name == "prepared"


def test_another_thread_may_have_what_a_dead_greenlet_left() -> None:
    g = Named(lambda: VARIABLE.set(1))
    g.switch()

    def look() -> None:
        context = g.gr_context
        assert context is not None and context[VARIABLE] == 1
        g.gr_context = None
        assert g.gr_context is None
        assert (g.dead, bool(g), g.gr_frame, g._stack_saved) == (True, False, None, 0)

    in_thread(look)
    text = raised_in_thread(error, g.switch)  # to its parent
    assert text.startswith("Cannot switch to a different thread\n")
