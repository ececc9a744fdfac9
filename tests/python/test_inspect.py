"""greenlet.inspect: which greenlets there are, where they are, and what it tells of them."""

from __future__ import annotations

import functools
import gc
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from greenlet import GreenletExit, error, getcurrent, greenlet, inspect, settrace
from helpers import (
    THREAD_SANITIZER,
    Unraisable,
    collect,
    in_thread,
    parallelize,
    run_clean,
    to_parent,
)


@pytest.fixture(autouse=True)
def nothing_left_of_other_tests() -> None:
    collect()
    for g in inspect.all_greenlets(threading.get_ident())[1:]:
        g.throw()  # the traceback of a failed test refers to them


def waits(depth: int = 0) -> Any:
    return waits(depth - 1) if depth else to_parent()


def suspended(run: Callable[..., Any] = waits, *args: Any) -> greenlet:
    g = greenlet(run)
    g.switch(*args)
    return g


@contextmanager
def other_thread(run: Callable[[], Any]) -> Iterator[threading.Thread]:
    """A thread that has called `run`, and waits in it until it is told to end."""
    ready, end = threading.Event(), threading.Event()

    def body() -> None:
        kept = run()
        ready.set()
        end.wait()
        del kept

    thread = threading.Thread(target=body, name="the other one")
    thread.start()
    ready.wait()
    try:
        yield thread
    finally:
        end.set()
        thread.join()


# --- which there are ----------------------------------------------------------------------------


def test_all_greenlets_are_those_that_have_started_and_not_finished() -> None:
    new, finished = greenlet(waits), suspended()
    finished.switch()
    first, second = suspended(), suspended()
    mine = threading.get_ident()
    assert inspect.all_greenlets(mine) == [getcurrent(), first, second]
    assert new not in inspect.all_greenlets()
    assert inspect.all_greenlets(threading.current_thread()) == inspect.all_greenlets(mine)


def test_all_greenlets_of_a_thread_and_of_all_threads() -> None:
    made: list[greenlet] = []

    def run() -> None:
        made.extend([getcurrent(), suspended(), suspended()])

    with other_thread(run) as thread:
        assert thread.ident is not None
        assert inspect.all_greenlets(thread) == inspect.all_greenlets(thread.ident) == made
        everybody = inspect.all_greenlets()
        assert getcurrent() in everybody
        assert [g for g in everybody if g in made] == made
    made.clear()
    assert inspect.all_greenlets(thread) == []


def test_a_thread_that_has_not_started_has_none() -> None:
    assert inspect.all_greenlets(threading.Thread()) == []
    with pytest.raises(ValueError, match="no thread main has used greenlets, but: .* MainThread"):
        inspect.all_greenlets("main")
    with pytest.raises(ValueError, match="no thread 1 has used greenlets"):
        inspect.all_greenlets(1)
    with pytest.raises(TypeError):
        inspect.all_greenlets(1.5)  # type: ignore[arg-type]


def test_a_thread_is_given_in_any_way() -> None:
    thread = threading.main_thread()
    for one in (thread, thread.ident, thread.native_id, thread.name):
        assert inspect.all_greenlets(one) == inspect.all_greenlets(thread) != []


def test_the_list_is_complete_after_a_freeze() -> None:
    g = suspended()
    gc.freeze()
    try:
        assert g in inspect.all_greenlets()
    finally:
        gc.unfreeze()


def test_the_list_of_a_greenlet_that_runs_has_its_main_greenlet() -> None:
    def run() -> list[greenlet]:
        return inspect.all_greenlets(threading.get_ident())

    g = greenlet(run)
    assert g.switch() == [getcurrent(), g]


def test_count_tells_who_waits_and_who_runs() -> None:
    before = inspect.count()
    kept = [suspended() for _ in range(10)]
    with other_thread(lambda: [getcurrent(), *(suspended() for _ in range(3))]) as thread:
        now = inspect.count()
        assert now.alive == before.alive + 14
        assert now.waiting == before.waiting + 13
        assert now.running == before.running + 1 == len(now.by_thread)
        assert thread.ident is not None
        assert now.by_thread[thread.ident] == 4
    kept.clear()
    assert inspect.count() == before


def test_lists_do_not_keep_greenlets() -> None:
    g = suspended()
    before = sys.getrefcount(g)
    for _ in range(3):
        inspect.all_greenlets()
        inspect.count()
        inspect.snapshot()
        inspect.stack(g)
        inspect.describe(g)
    collect()
    assert sys.getrefcount(g) == before


OF_ITS_OWN = """
from greenlet import getcurrent, greenlet, inspect
family = [greenlet(getcurrent().switch) for _ in range(5)]
for g in family:
    g.switch()
assert len(inspect.all_greenlets()) == inspect.count().alive == 6
"""


def test_another_interpreter_has_greenlets_of_its_own() -> None:
    run_clean(
        f"""
        from child import Interpreter
        from greenlet import getcurrent, greenlet, inspect
        g = greenlet(getcurrent().switch)
        g.switch()
        other = Interpreter(False)
        other.run({OF_ITS_OWN!r})
        assert len(inspect.all_greenlets()) == inspect.count().alive == 2
        other.close()
        assert inspect.count().alive == 2
        """
    )


# --- where they are -----------------------------------------------------------------------------


def functions(g: greenlet) -> list[str]:
    return [frame.function for frame in inspect.stack(g)]


def test_the_stack_of_a_suspended_greenlet_begins_with_its_run() -> None:
    g = suspended(waits, 2)
    assert functions(g) == ["waits", "waits", "waits", "to_parent"]
    frame = inspect.stack(g)[0]
    assert frame.file == __file__
    assert frame.line == waits.__code__.co_firstlineno + 1


def test_the_stack_is_that_of_gr_frame() -> None:
    def generate() -> Iterator[Any]:
        yield [to_parent() for _ in range(2)]

    class Called:
        def __init__(self) -> None:
            self.got = next(generate())

    g = suspended(lambda: sorted([1], key=lambda number: Called().got or 1))
    found, frame = [], g.gr_frame
    while frame is not None:
        found.append((frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    assert [each[:3] for each in inspect.stack(g)] == found[::-1]


def test_the_stack_of_the_running_greenlet_ends_here() -> None:
    def run() -> Any:
        return inspect.stack(getcurrent())

    assert [frame.function.rpartition(".")[2] for frame in greenlet(run).switch()] == [
        "run",
        "stack",
    ]
    assert functions(getcurrent())[-2:] == ["functions", "stack"]


def test_the_stack_of_a_greenlet_that_runs_in_another_thread() -> None:
    ready, end, running = threading.Event(), threading.Event(), []

    def blocks() -> None:
        running.append(getcurrent())
        ready.set()
        end.wait()

    thread = threading.Thread(target=lambda: greenlet(blocks).switch())
    thread.start()
    ready.wait()
    try:
        names = functions(running[0])
        assert names[0].endswith("blocks")
        assert names[1:3] == ["Event.wait", "Condition.wait"][: len(names) - 1]
        main = running[0].parent
        assert main is not None
        assert functions(main)[-1].endswith("<lambda>")
    finally:
        end.set()
        thread.join()
        running.clear()


def test_new_and_dead_greenlets_have_no_stack() -> None:
    g = greenlet(waits)
    assert inspect.stack(g) == ()
    g.switch()
    g.switch()
    assert g.dead
    assert inspect.stack(g) == ()


def test_a_deep_stack() -> None:
    g = suspended(waits, 300)
    assert len(inspect.stack(g)) == 302


def test_stacks_of_threads_that_run_all_the_time() -> None:
    stop = threading.Event()
    have_switched: set[int] = set()

    def switches(index: int) -> int:
        if index == 0:
            try:
                rounds = 0
                # Under a GIL a thread may have to wait for its turn.
                while rounds < 300 or len(have_switched) < 3:
                    rounds += 1
                    for g in inspect.all_greenlets():
                        for frame in inspect.stack(g):
                            assert frame.function
                        inspect.describe(g)
                    inspect.count()
            finally:
                stop.set()
            return 0
        switched = 0
        while not stop.is_set():
            g = greenlet(lambda: [to_parent() for _ in range(5)])
            while not g.dead:
                g.switch()
                switched += 1
                have_switched.add(index)
        return switched

    assert all(parallelize(switches, threads=4)[1:])


@pytest.mark.parametrize("function", [inspect.stack, inspect.describe, inspect.get_name])
def test_only_greenlets_can_be_looked_at(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="expected a greenlet, not int"):
        function(1)


# --- what they are ------------------------------------------------------------------------------


def test_describe_in_every_state() -> None:
    g = greenlet(waits)
    found = inspect.describe(g)
    assert (found.state, found.thread, found.thread_name) == ("new", None, None)
    assert found.run is waits
    assert found.parent is getcurrent()
    g.switch()
    found = inspect.describe(g)
    assert found.state == "suspended"
    assert (found.thread, found.native_id) == (threading.get_ident(), threading.get_native_id())
    assert found.thread_name == threading.current_thread().name
    assert found.run is waits
    assert found.stack_in_use > 0
    assert not found.is_main
    g.switch()
    found = inspect.describe(g)
    assert (found.state, found.thread, found.run, found.stack_in_use) == ("dead", None, None, 0)
    main = inspect.describe(getcurrent())
    assert (main.state, main.is_main, main.parent, main.run) == ("running", True, None, None)


def test_a_greenlet_of_a_thread_that_has_ended() -> None:
    g = in_thread(getcurrent)
    assert inspect.describe(g).state == "abandoned"
    assert inspect.describe(g).thread is None
    assert inspect.stack(g) == ()


class Named(greenlet):
    name: Any = "by its class"


class Hostile(greenlet):
    @property
    def name(self) -> str:
        raise RuntimeError("no name")


def test_the_name_is_the_first_that_there_is() -> None:
    class Callable:
        def __call__(self) -> None: ...

        def method(self) -> None: ...

    qualified = Callable.__qualname__
    assert inspect.get_name(getcurrent()) == "main"
    assert inspect.get_name(greenlet(waits)) == "waits"
    assert inspect.get_name(greenlet(functools.partial(waits, 1))) == "waits"
    assert inspect.get_name(greenlet(Callable().method)) == f"{qualified}.method"
    assert inspect.get_name(greenlet(Callable())) == qualified
    assert inspect.get_name(greenlet()) == "greenlet"
    assert inspect.get_name(Hostile(waits)) == "waits"
    named = Named(waits)
    assert inspect.get_name(named) == "waits"
    for name in (3, ""):
        named.name = name
        assert inspect.get_name(named) == "waits"
    late = Named(None)
    assert inspect.get_name(late) == "Named"
    late.__dict__["_run"] = waits
    assert inspect.get_name(late) == "waits"
    named.name = "its own"
    assert inspect.get_name(named) == "its own"


def test_a_name_can_be_set_and_removed() -> None:
    g = Named(waits)
    inspect.set_name(g, "mine")
    assert inspect.get_name(g) == "mine"
    assert repr(g).endswith(" name='mine'>")
    inspect.set_name(g, None)
    assert inspect.get_name(g) == "waits"
    assert "name=" not in repr(g)
    for wrong in (3, b"name"):
        with pytest.raises(TypeError, match="a name is a str or None"):
            inspect.set_name(g, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        inspect.set_name("g", "name")  # type: ignore[arg-type]


def test_names_set_from_many_threads() -> None:
    g = suspended()

    def rename(index: int) -> None:
        for number in range(500):
            inspect.set_name(g, f"{index} {number}")
            assert inspect.get_name(g).split()
            repr(g)

    parallelize(rename)


@contextmanager
def origins(frames: int) -> Iterator[None]:
    previous = inspect.track_origin(frames)
    try:
        yield
    finally:
        assert inspect.track_origin(previous) == frames


def test_origins_are_noted_while_that_is_on() -> None:
    assert inspect.describe(greenlet(waits)).origin == ()

    def make() -> greenlet:
        return greenlet(waits)

    with origins(2):
        g = make()
        one = Named(waits)
    here, there = inspect.describe(g).origin
    assert there.function == make.__qualname__
    assert there.line == make.__code__.co_firstlineno + 1
    assert here.function == "test_origins_are_noted_while_that_is_on"
    assert len(inspect.describe(one).origin) == 2
    with origins(1):
        assert len(inspect.describe(make()).origin) == 1
    with origins(100):
        assert 1 < len(inspect.describe(make()).origin) <= 100
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match="cannot note"):
            inspect.track_origin(wrong)


def test_an_origin_is_garbage_with_its_greenlet() -> None:
    namespace: dict[str, Any] = {"greenlet": greenlet}
    exec("def make():\n    g = greenlet(make)\n    g.itself = g\n    return g", namespace)
    gone: list[int] = []
    with origins(1):
        namespace["make"]()
        weakref.finalize(namespace["make"], gone.append, 1)
    namespace.clear()
    collect()
    assert gone == [1]


# --- trees --------------------------------------------------------------------------------------


def tree(thread: threading.Thread | None = None) -> list[str]:
    return inspect.format_tree(thread or threading.current_thread()).splitlines()


def test_a_tree_shows_children_below_their_parents() -> None:
    child: list[greenlet] = []

    def parent() -> None:
        child.append(suspended())
        inspect.set_name(child[0], "the child")
        to_parent()

    g = suspended(parent)
    lines = tree()
    assert lines[0].startswith(f"thread {threading.get_native_id()} ")
    assert lines[0].endswith(", 3 greenlets")
    assert lines[1].startswith("└─ main ")
    titles = [line for line in lines if "─ " in line]
    assert "parent" in titles[1]
    assert titles[1].startswith("   └─ ")
    assert titles[2].startswith("      └─ the child ")
    del g


def test_greenlets_at_the_same_place_are_shown_together() -> None:
    kept = [suspended() for _ in range(20)]
    different = suspended(waits, 1)
    lines = tree()
    assert any("20 greenlets waits suspended" in line for line in lines)
    assert sum("waits  " in line for line in lines) == 2  # the second with × 2
    whole = inspect.format_tree(threading.current_thread(), group=False).splitlines()
    assert sum("─ waits 0x" in line for line in whole) == 21
    del kept, different


def test_a_recursion_is_one_line() -> None:
    g = suspended(waits, 50)
    assert any(line.endswith("× 51") for line in tree())
    del g


def test_a_long_chain_of_parents_is_no_recursion() -> None:
    def descend(levels: int) -> None:
        if levels:
            g = greenlet(descend, getcurrent())
            g.switch(levels - 1)
        main.switch()

    main, g = getcurrent(), greenlet(descend)
    g.switch(200)
    assert len(tree()) > 200
    assert len(inspect.to_json(threading.current_thread())[0]["greenlets"]) == 202
    for one in inspect.all_greenlets(threading.get_ident())[1:]:
        one.parent = main
        assert isinstance(one.throw(), GreenletExit)


def test_a_tree_has_no_frames_of_the_look_itself_wherever_the_package_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A program that PyInstaller has made has the file of a module elsewhere than its code says.
    monkeypatch.setattr(inspect, "__file__", "/somewhere/greenlet/inspect.py")
    text = inspect.format_tree(threading.current_thread())
    assert "test_a_tree_has_no_frames" in text
    assert "snapshot" not in text


def test_a_tree_is_printed_in_colour_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def printed() -> str:
        file = io.StringIO()
        inspect.print_tree(threading.current_thread(), file=file)
        return file.getvalue()

    assert "\033[" not in printed()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\033[1m" in printed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[" not in printed()


def test_variables_are_shown_as_text() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise ValueError("no")

    def run() -> None:
        number, wide, bad = 42, "x" * 1000, Unprintable()
        to_parent()
        del number, wide, bad

    g = suspended(run)
    text = inspect.format_tree(threading.current_thread(), variables=True)
    assert "number = 42" in text
    assert "bad = <repr() raised ValueError>" in text
    assert "…" in text
    assert "x" * 300 not in text
    del g


def test_json_can_be_written() -> None:
    g = suspended()
    inspect.set_name(g, "näme\udcff")
    (found,) = json.loads(json.dumps(inspect.to_json(threading.current_thread())))
    assert found["ident"] == threading.get_ident()
    main, one = found["greenlets"]
    assert main["is_main"]
    assert main["parent"] == 0
    assert one["parent"] == main["id"] == id(getcurrent())
    assert (one["name"], one["state"], one["type"]) == ("näme\udcff", "suspended", "greenlet")
    assert [frame["function"] for frame in one["stack"]] == ["waits", "to_parent"]


# --- tracing of all threads ---------------------------------------------------------------------


@contextmanager
def traced_everywhere(callback: Any) -> Iterator[None]:
    assert settrace(callback, all_threads=True) is None
    try:
        yield
    finally:
        settrace(None, all_threads=True)


def test_a_callback_of_all_threads_is_called_in_old_and_new_ones() -> None:
    events: list[tuple[int, str, tuple[greenlet, greenlet]]] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        events.append((threading.get_ident(), event, pair))

    go, done, over = threading.Event(), threading.Event(), threading.Event()
    idents: list[int] = []

    def old() -> None:
        getcurrent()
        idents.append(threading.get_ident())
        done.set()
        go.wait()
        suspended()
        over.wait()  # or the new thread may get the same ident

    def new() -> None:
        idents.append(threading.get_ident())
        suspended()

    thread = threading.Thread(target=old)
    thread.start()
    done.wait()
    with traced_everywhere(callback):
        go.set()
        try:
            in_thread(new)
        finally:
            over.set()
            thread.join()
        g = suspended()
    count = len(events)
    g.switch()
    assert len(events) == count
    told = {ident for ident, _, _ in events}
    assert told == {*idents, threading.get_ident()}
    assert [(event, pair) for ident, event, pair in events if ident == threading.get_ident()] == [
        ("switch", (getcurrent(), g)),
        ("switch", (g, getcurrent())),
    ]


def test_a_thread_of_its_own_callback_does_not_call_the_one_of_all() -> None:
    own: list[str] = []
    everywhere: list[str] = []
    with traced_everywhere(lambda event, pair: everywhere.append(event)):
        settrace(lambda event, pair: own.append(event))
        try:
            g = suspended()
        finally:
            settrace(None)
        assert (own, everywhere) == (["switch", "switch"], [])
        g.switch()
        assert len(everywhere) == 2


def test_a_callback_of_all_threads_that_raises_is_removed_for_that_thread() -> None:
    calls: list[int] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        calls.append(threading.get_ident())
        raise KeyError("traced")

    with traced_everywhere(callback):
        g = greenlet(lambda: 5)
        with pytest.raises(KeyError, match="traced"):
            g.switch()
        assert calls == [threading.get_ident()]
        assert greenlet(lambda: 6).switch() == 6

        def other() -> None:
            with pytest.raises(KeyError):
                greenlet(lambda: 5).switch()

        in_thread(other)
        assert len(calls) == 2


def test_the_first_switch_of_a_greenlet_tells_what_it_runs() -> None:
    found: list[Any] = []

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        found.append(inspect.describe(pair[1]).run)

    with traced_everywhere(callback):
        g = suspended()
    assert found == [waits, None]
    del g


# --- what holds a thread up ---------------------------------------------------------------------


def test_a_watch_reports_what_computes_and_what_blocks() -> None:
    found: list[inspect.HeldUp] = []
    other = suspended()

    def blocks() -> None:
        to_parent()
        told = threading.Event()
        while not any("blocks" in each.name for each in found):
            told.wait(0.01)

    g = suspended(blocks)
    inspect.set_name(g, "blocks")
    with inspect.watch(0.05, found.append):
        g.switch()
    first = next(each for each in found if each.greenlet is g)
    assert first.thread == threading.get_ident()
    assert first.seconds >= 0.05
    assert first.waiting == 1
    assert any(frame.function.endswith("blocks") for frame in first.stack)
    assert "greenlet blocks has held thread" in str(first)
    del other


def test_a_watch_leaves_schedulers_and_lone_threads_alone() -> None:
    found: list[inspect.HeldUp] = []
    hub = greenlet(lambda: time.sleep(0.3))
    child = greenlet(waits)
    child.parent = hub  # so it is a scheduler
    child.switch()
    with inspect.watch(0.05, found.append):
        hub.switch()
    assert found == []
    child.parent = getcurrent()
    child.switch()
    with inspect.watch(0.05, found.append):
        time.sleep(0.2)
        greenlet(lambda: time.sleep(0.2)).switch()  # as in a thread of a pool
    assert found == []  # nobody waits here any more


def test_a_watch_has_a_thread_of_the_system_where_threads_are_replaced() -> None:
    run_clean("""
        import _thread, threading
        from greenlet import getcurrent, greenlet

        class Replaced:
            def __init__(self, *args, **kwargs):
                raise AssertionError

        _thread.start_new_thread = Replaced
        threading.Thread = threading.Event = threading.Lock = Replaced
        from greenlet import inspect

        found = []
        other = greenlet(getcurrent().switch)
        other.switch()
        with inspect.watch(0.01, found.append):
            while not found:
                pass
    """)


def test_a_watch_that_switches_often_reports_nothing() -> None:
    found: list[inspect.HeldUp] = []
    g = greenlet(lambda: [to_parent() for _ in iter(int, 1)])
    g.switch()
    with inspect.watch(0.2, found.append):
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            g.switch()
    assert [each for each in found if each.thread == threading.get_ident()] == []
    g.throw()


def test_a_callback_that_raises_is_reported() -> None:
    def fails(found: inspect.HeldUp) -> None:
        raise KeyError("told")

    def blocks() -> None:
        g = suspended()
        end = time.monotonic() + 20
        while not unraisable.types and time.monotonic() < end:
            time.sleep(0.01)
        del g

    with Unraisable() as unraisable, inspect.watch(0.05, fails):
        in_thread(blocks)  # in which no other test has made the main greenlet a scheduler
    assert KeyError in unraisable.types
    with pytest.raises(ValueError, match="cannot watch"):
        inspect.watch(0, print)


# --- what leaks ---------------------------------------------------------------------------------


def lost() -> None:
    g: Any = suspended()
    g.itself = g


def test_collections_report_the_greenlets_that_they_end() -> None:
    collect()
    before = inspect.collected()
    told: list[inspect.GreenletView] = []
    assert inspect.on_collected(told.append) is None
    try:
        with origins(1):
            lost()
        collect()
        kept = suspended()
        del kept  # not by a collection
        lost()
    finally:
        assert inspect.on_collected(None) == told.append
    collect()
    assert inspect.collected() == before + 2
    (one,) = told
    assert one.state == "suspended"
    assert [frame.function for frame in one.stack] == ["waits", "to_parent"]
    assert one.origin[0].function == "suspended"


def test_a_report_that_raises_does_not_keep_the_greenlet() -> None:
    ended: list[int] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            ended.append(1)

    def fails(found: inspect.GreenletView) -> None:
        raise KeyError("told")

    inspect.on_collected(fails)
    try:
        with Unraisable() as unraisable:
            g: Any = suspended(run)
            g.itself = g
            del g
            collect()
    finally:
        inspect.on_collected(None)
    assert ended == [1]
    assert unraisable.types == [KeyError]


# --- errors that help ---------------------------------------------------------------------------


def notes(failure: BaseException) -> str:
    return "\n".join(getattr(failure, "__notes__", []))


def test_a_switch_to_another_thread_says_where_the_greenlet_is() -> None:
    g = suspended()

    def other() -> None:
        with pytest.raises(error, match="^Cannot switch to a different thread\n") as failure:
            g.switch()
        text = notes(failure.value)
        assert "Greenlet waits belongs to thread MainThread" in text
        assert "It waits at to_parent, " in text

    in_thread(other)


def test_a_start_in_another_thread_than_the_parents_says_what_to_do() -> None:
    g = greenlet(lambda: "started")

    def other() -> str:
        with pytest.raises(error, match="^Cannot switch to a different thread\n") as failure:
            g.switch()
        assert "has not started" in notes(failure.value)
        assert "of its parent, MainThread; this is thread" in notes(failure.value)
        g.parent = getcurrent()  # as the note says
        started: str = g.switch()
        return started

    assert in_thread(other) == "started"


def test_a_switch_to_a_thread_that_has_ended_says_so() -> None:
    g = in_thread(getcurrent)
    with pytest.raises(error, match="happens to have exited") as failure:
        g.switch()
    assert "its thread has ended" in notes(failure.value)


def test_a_greenlet_without_a_run_says_what_to_do() -> None:
    with pytest.raises(AttributeError) as failure:
        greenlet().switch()
    assert str(failure.value) == "run"
    assert "has nothing to run" in notes(failure.value)

    class Failing(greenlet):
        @property
        def run(self) -> Any:  # type: ignore[override]
            raise AttributeError("my own")

    with pytest.raises(AttributeError, match="my own") as failure:
        Failing().switch()
    assert notes(failure.value) == ""


def test_cyclic_parents_are_named() -> None:
    parent = greenlet(waits)
    child = greenlet(waits, parent)
    inspect.set_name(child, "child")
    with pytest.raises(ValueError) as failure:
        parent.parent = child
    assert str(failure.value) == "cyclic parent chain"
    assert "child → waits" in notes(failure.value)


def test_an_unraisable_exception_names_the_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        try:
            to_parent()
        finally:
            raise KeyError("unheard")

    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(notes(report.exc_value)))
    g = suspended(run)
    inspect.set_name(g, "it")
    del g
    (text,) = found
    assert "Raised in greenlet it" in text


# --- dumps --------------------------------------------------------------------------------------


def dumped(write: Callable[[Any], None]) -> str:
    with tempfile.TemporaryFile("w+") as file:
        write(file)
        file.seek(0)
        return file.read()


def test_a_dump_shows_all_greenlets_of_all_threads() -> None:
    g = suspended(waits, 3)
    inspect.set_name(g, "nämed")
    with other_thread(lambda: suspended(waits, 1)):
        text = dumped(inspect.dump)
    assert f"greenlet {id(g):#x} n\\u{{e4}}med, suspended" in text
    assert text.count(" in waits\n") == 4 + 2
    assert f'File "{__file__}", line {waits.__code__.co_firstlineno + 1} in waits' in text
    assert text.count("Thread ") >= 2
    assert "in test_a_dump_shows_all_greenlets_of_all_threads" in text


def test_a_signal_dumps_and_may_call_the_handler_that_was_there() -> None:
    g, heard = suspended(), []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        for chain in (False, True):

            def write(file: Any, chain: bool = chain) -> None:
                inspect.dump_on_signal(signal.SIGUSR1, file, chain=chain)
                os.kill(os.getpid(), signal.SIGUSR1)
                assert inspect.no_dump_on_signal(signal.SIGUSR1)

            assert f"{id(g):#x}, suspended" in dumped(write)
            assert len(heard) == chain
        assert not inspect.no_dump_on_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGUSR1, previous)
    for wrong in (-1, 10_000, signal.SIGKILL):
        with pytest.raises(OSError, match="Invalid argument"):
            inspect.dump_on_signal(wrong, sys.__stderr__)


@pytest.mark.skipif(THREAD_SANITIZER, reason="the signal handler races, and checks what it reads")
def test_dumps_while_threads_switch_start_and_end() -> None:
    run_clean(
        """
        import os, signal, tempfile, threading, time
        from greenlet import getcurrent, greenlet, inspect
        file = tempfile.TemporaryFile("w+")
        inspect.dump_on_signal(signal.SIGUSR1, file)
        stop = time.monotonic() + 3
        def work():
            while time.monotonic() < stop:
                def short():
                    family = [greenlet(getcurrent().switch) for _ in range(20)]
                    for g in family:
                        g.switch()
                    for g in family[::2]:
                        g.switch()
                threads = [threading.Thread(target=short) for _ in range(3)]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
        workers = [threading.Thread(target=work) for _ in range(2)]
        [worker.start() for worker in workers]
        while time.monotonic() < stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)
        [worker.join() for worker in workers]
        inspect.no_dump_on_signal(signal.SIGUSR1)
        assert file.seek(0, 2) > 0
        file.close()
        """,
        timeout=60,
    )


def test_the_command_reports_the_installation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "greenlet"], capture_output=True, text=True, check=True
    )
    for part in ("own-stacks", sys.version.split()[0], "_greenlet", "of C stack"):
        assert part in done.stdout
