"""What other threads get from a greenlet: its attributes, or a refusal, whatever its owner does."""

from __future__ import annotations

import contextvars
import copy
import gc
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from greenlet import error, getcurrent, greenlet
from helpers import TIME_SCALE, collect, collect_until, in_thread, parallelize, run_clean, to_parent

ROUNDS = int(1_000 / TIME_SCALE)
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE")


class Named(greenlet):
    """Has a dict."""

    name: str


def raised_in_thread(kind: type[Exception], function: Callable[[], object]) -> str:
    """Call it in another thread, where it must raise; return the text."""

    def call() -> str:
        with pytest.raises(kind) as caught:
            function()
        return str(caught.value)

    return in_thread(call)


class Owner:
    """A thread that has a greenlet in which it runs, until it is let go."""

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


# --- what the answers are -------------------------------------------------------------------


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


def test_a_greenlet_switched_to_by_several_threads_starts_in_its_own_only() -> None:
    main = getcurrent()
    for _ in range(ROUNDS // 20):
        starts: list[int] = []
        g = greenlet(lambda starts=starts: starts.append(threading.get_ident()))
        together = threading.Barrier(2)

        def work(g: greenlet = g, together: threading.Barrier = together) -> None:
            together.wait()
            with pytest.raises(error, match="^Cannot switch to a different thread\n"):
                g.switch()

        thread = threading.Thread(target=work)
        thread.start()
        together.wait()
        g.switch()
        thread.join()
        assert starts == [threading.get_ident()]
        assert getcurrent() is main


def test_a_run_set_while_the_greenlet_starts_counts_or_is_refused() -> None:
    def early() -> str:
        return "early"

    def late() -> str:
        return "late"

    for _ in range(ROUNDS // 20):
        g = greenlet(early)
        together = threading.Barrier(2)
        results: list[str] = []

        def work(
            g: greenlet = g, together: threading.Barrier = together, results: list[str] = results
        ) -> None:
            together.wait()
            try:
                g.run = late
            except AttributeError as refusal:
                assert str(refusal) == "run cannot be set after the start of the greenlet"
                results.append("early")

        thread = threading.Thread(target=work)
        thread.start()
        together.wait()
        got = g.switch()
        thread.join()
        # Starting reads run first and then begins: one set in between is not refused, but too late.
        assert got == "early" if results else got in ("early", "late")


def test_attributes_that_several_threads_set_are_all_there() -> None:
    g = Named(None)

    def work(index: int) -> None:
        for number in range(ROUNDS // 10):
            setattr(g, f"a{index}_{number}", number)

    parallelize(work, 4)
    assert len(g.__dict__) == 4 * (ROUNDS // 10)


def test_a_dict_may_be_replaced_while_others_use_its_attributes() -> None:
    g: Any = Named(None)
    g.name = "name"

    def work(index: int) -> None:
        for _ in range(ROUNDS):
            if index == 0:
                g.__dict__ = {"name": "name"}
            else:
                assert g.name == "name"

    parallelize(work, 3)


def test_a_class_with_a_finalizer_may_be_used_first_by_several_threads_at_once() -> None:
    for _ in range(ROUNDS // 20):
        deleted: list[int] = []
        ended: list[int] = []

        class Finalized(greenlet):
            def __del__(self, deleted: list[int] = deleted) -> None:
                deleted.append(1)

        def body(ended: list[int] = ended) -> None:
            try:
                to_parent()
            finally:
                ended.append(1)

        def work(
            index: int, make: type[greenlet] = Finalized, body: Callable[[], None] = body
        ) -> None:
            make(body).switch()

        parallelize(work, 3)
        collect()
        assert len(deleted) == len(ended) == 3


# --- while the owner is at it ---------------------------------------------------------------

LOOKS: dict[str, Callable[[Any], object]] = {
    "dead": lambda g: g.dead,
    "bool": bool,
    "parent": lambda g: g.parent,
    "gr_frame": lambda g: g.gr_frame,
    "_stack_saved": lambda g: g._stack_saved,
    "repr": repr,
    "gr_context": lambda g: g.gr_context,
    "run": lambda g: g.run,
    "__dict__": lambda g: dict(g.__dict__),
    "set __dict__": lambda g: setattr(g, "__dict__", {}),
    "set attribute": lambda g: setattr(g, "attribute", 1),
    "switch": lambda g: g.switch(),
    "throw": lambda g: g.throw(KeyError),
    "set parent": lambda g: setattr(g, "parent", g.parent),
    "set parent of this thread": lambda g: setattr(g, "parent", getcurrent()),
    "set run": lambda g: setattr(g, "run", None),
    "delete run": lambda g: delattr(g, "run"),
    "__init__": lambda g: g.__init__(None),
    "set gr_context": lambda g: setattr(g, "gr_context", contextvars.copy_context()),
    "set gr_context to None": lambda g: setattr(g, "gr_context", None),
    "getcurrent": lambda g: g is getcurrent(),
    "referents": gc.get_referents,
    "hash": hash,
    "weak reference": lambda g: weakref.ref(g)(),
    "copy": copy.copy,
}
REFUSALS = (error, ValueError, AttributeError, TypeError)


def keeps_switching(shared: list[Any], stop: threading.Event) -> None:
    def inner() -> Any:
        local = [1, 2, 3]
        return to_parent(local)

    def body() -> None:
        while True:
            inner()

    g = shared[0] = Named(body)
    while not stop.is_set():
        try:
            for _ in range(20):
                if g.switch() != [1, 2, 3]:
                    raise RuntimeError("the greenlet has lost what it sends")
        except REFUSALS:
            # It may be started with a run, or end up with a parent, that another thread has set.
            g = shared[0] = Named(body)


def keeps_starting(shared: list[Any], stop: threading.Event) -> None:
    while not stop.is_set():
        g = shared[0] = Named(to_parent)
        try:
            g.switch()
            g.switch()
        except REFUSALS:
            pass


def keeps_killing(shared: list[Any], stop: threading.Event) -> None:
    while not stop.is_set():
        g = Named(to_parent)
        try:
            g.switch()
            shared[0] = g
            g.throw()
        except REFUSALS:
            pass


OWNERS = {
    "switches": keeps_switching,
    "starts": keeps_starting,
    "kills": keeps_killing,
}


def hammer(owner: str, rounds: int) -> None:
    """Let two threads do all that LOOKS has with the greenlet of a third."""
    shared: list[Any] = [greenlet()]
    stop = threading.Event()

    def work(index: int) -> None:
        if index == 0:
            OWNERS[owner](shared, stop)
            return
        generator = random.Random(index)
        names = list(LOOKS)
        try:
            for _ in range(rounds):
                generator.shuffle(names)
                for name in names:
                    try:
                        LOOKS[name](shared[0])
                    except (*REFUSALS, KeyError):
                        pass  # what it throws comes back if the greenlet is made this thread's
        finally:
            stop.set()

    parallelize(work, 3)
    print("ended")


def run_here(statement: str) -> str:
    """Run a function of this file in a child process."""
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    return run_clean(f"import test_shared_greenlets as t; t.{statement}", env={"PYTHONPATH": path})


@pytest.mark.parametrize("owner", OWNERS)
def test_other_threads_may_do_anything_with_a_greenlet_while_its_owner(owner: str) -> None:
    assert run_here(f"hammer({owner!r}, {ROUNDS // 10})") == "ended"


def change_parents_of_the_dead(rounds: int) -> None:
    """Send to a dead greenlet, whose parent another thread lets go of at that moment."""
    shared: list[Any] = [None]
    main = getcurrent()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            dead = shared[0]
            if dead is not None:
                dead.parent = main

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(rounds):
        dead = greenlet(lambda: None)
        dead.switch()
        waiting = greenlet(lambda: to_parent("waits") and "heard")
        waiting.switch()
        dead.parent = waiting
        del waiting
        shared[0] = dead
        assert dead.switch("hello") in ("hello", "heard")
    stop.set()
    thread.join()
    print("ended")


def test_the_parent_of_a_dead_greenlet_may_be_changed_while_it_passes_something_on() -> None:
    # Once freed the parent that it was being passed on to.
    assert run_here(f"change_parents_of_the_dead({ROUNDS * 5})") == "ended"


def test_the_locals_of_a_greenlet_stay_while_others_of_its_thread_run() -> None:
    def body(number: int) -> None:
        to_parent()

    frozen = greenlet(body)
    frozen.switch(7)
    stop = threading.Event()

    def work(index: int) -> None:
        try:
            for _ in range(ROUNDS // 10):
                frame = frozen.gr_frame
                while frame is not None and frame.f_code is not body.__code__:
                    frame = frame.f_back
                assert frame is not None and frame.f_locals["number"] == 7
        finally:
            stop.set()

    thread = threading.Thread(target=lambda: parallelize(work, 2))
    thread.start()
    while not stop.is_set():
        greenlet(body).switch(1)
    thread.join()
    frozen.switch()


def end_while_others_drop(rounds: int) -> None:
    """Drop greenlets that this thread made, while the thread that started them ends."""
    ended: list[int] = []

    def body() -> None:
        try:
            to_parent()
        finally:
            ended.append(1)

    for _ in range(rounds):
        mains: list[greenlet] = []
        family: list[greenlet] = []
        steps = [threading.Event() for _ in range(3)]

        def start(
            mains: list[greenlet] = mains,
            family: list[greenlet] = family,
            steps: list[threading.Event] = steps,
        ) -> None:
            mains.append(getcurrent())
            steps[0].set()
            steps[1].wait()
            for place in range(len(family)):
                family[place].switch()
            steps[2].set()

        thread = threading.Thread(target=start)
        thread.start()
        steps[0].wait()
        for _ in range(20):
            family.append(greenlet(body, mains[0]))
        mains.clear()
        steps[1].set()
        steps[2].wait()
        while family:
            family.pop()
        thread.join()
    assert len(ended) == 20 * rounds
    print("ended")


def test_a_thread_may_end_while_others_drop_its_greenlets() -> None:
    # Once ended greenlets that another thread was deallocating.
    assert run_here(f"end_while_others_drop({ROUNDS})") == "ended"


def collect_for_others(rounds: int) -> None:
    """Let cycles that hold suspended greenlets be collected by whichever thread comes to it."""
    started: list[int] = []
    ended: list[int] = []
    stop = threading.Event()

    class Finalized(greenlet):
        def __del__(self) -> None:
            pass

    def body() -> None:
        started.append(1)
        try:
            to_parent()
        finally:
            ended.append(1)

    def work(index: int) -> None:
        if index == 0:
            collect_until(stop)
            return
        try:
            for number in range(rounds):
                outer: Any = Finalized(body) if number % 2 else greenlet(body)
                outer.inner = inner = greenlet(body)
                inner.switch()
                outer.cycle = [outer]
                outer.switch()
        finally:
            stop.set()

    parallelize(work, 3)
    collect()
    assert len(ended) == len(started) > 0, (len(ended), len(started))
    print("ended")


def test_greenlets_that_another_thread_collects_are_ended_by_their_own() -> None:
    # Once left for ever those that their owner took before the collection was over.
    assert run_here(f"collect_for_others({ROUNDS * 2})") == "ended"
