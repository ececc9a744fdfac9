"""greenlet.inspect against code that does not cooperate: attributes that raise, names that are no
text, threads that outlive their state, event loops that replace threads."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from greenlet import _view, error, getcurrent, greenlet, inspect, settrace, timeline
from helpers import FREE_THREADED, Unraisable, collect, in_thread, run_clean, to_parent


@pytest.fixture(autouse=True)
def nothing_left_of_other_tests() -> Iterator[None]:
    yield
    collect()
    for g in inspect.all_greenlets(threading.get_ident())[1:]:
        g.throw()


def waits() -> Any:
    return to_parent()


def suspended(run: Any = waits, kind: type[greenlet] = greenlet) -> greenlet:
    g = kind(run)
    g.switch()
    return g


# --- names and attributes -----------------------------------------------------------------------


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __hash__ = __str__  # type: ignore[assignment]


def test_a_name_is_a_str_itself() -> None:
    g = suspended()
    inspect.set_name(g, Text("mine"))
    assert type(inspect.get_name(g)) is str
    assert inspect.get_name(g) == "mine"
    assert "name='mine'" in repr(g)
    assert "mine" in inspect.format_tree()
    g.__dict__["name"] = Text("its own")
    inspect.set_name(g, None)
    assert type(inspect.get_name(g)) is str
    assert inspect.get_name(g) == "its own"


def test_a_name_makes_no_cycle_that_stays() -> None:
    class Plain(str):
        pass

    name: Any = Plain("mine")
    g: Any = greenlet(waits)
    name.greenlet = g
    inspect.set_name(g, name)
    gone = weakref.ref(g)
    del g, name
    collect()
    assert gone() is None


class Proxy:
    """As werkzeug's LocalProxy outside of a context."""

    def __call__(self) -> Any:
        return to_parent()

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("outside of a context")


def raises(self: object) -> Any:
    raise RuntimeError("no attribute")


Overrides = type(
    "Overrides", (greenlet,), {"parent": property(raises), "gr_frame": property(raises)}
)


def test_attributes_that_raise_hide_nothing() -> None:
    kept = suspended(Proxy()), suspended(getcurrent().switch, Overrides)
    assert inspect.get_name(kept[0]) == "Proxy"
    for one in kept:
        assert inspect.describe(one).parent is getcurrent()
    text = inspect.format_tree(threading.get_ident(), variables=True)
    assert "Proxy" in text
    assert " Overrides " in text
    assert len(inspect.to_json(threading.get_ident(), variables=True)[0]["greenlets"]) == 3


class Scope(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


@pytest.mark.parametrize("scope", [Scope(), {("no", "name"): 1}])
def test_variables_may_be_any_mapping(scope: Any) -> None:
    main = getcurrent()
    code = compile("switch()", "a scope", "exec")
    g = suspended(lambda: exec(code, {"switch": main.switch}, scope))
    text = json.dumps(inspect.to_json(threading.get_ident(), variables=True))
    assert "a scope" in text
    assert ("('no', 'name')" in text) == (not isinstance(scope, Scope))
    del g


def test_a_hint_makes_no_thread_known() -> None:
    import _thread

    main, done = getcurrent(), threading.Event()
    notes: list[str] = []

    def body() -> None:
        try:
            main.switch()
        except error as failure:
            notes.extend(failure.__notes__)
        known.append(_thread.get_ident() in threading._active)  # type: ignore[attr-defined]
        done.set()

    known: list[bool] = []
    _thread.start_new_thread(body, ())
    done.wait()
    assert known == [False]
    assert "belongs to thread MainThread; this is thread 0x" in notes[0]


def test_an_empty_name_is_none() -> None:
    g = suspended(kind=type("Empty", (greenlet,), {"name": ""}))
    assert inspect.get_name(g) == "waits"


@pytest.mark.parametrize("name", ["two\nlines", "nul\0", "\x1b[31mred", "\ud800"])
def test_a_tree_has_no_other_lines_and_no_escapes_than_its_own(name: str) -> None:
    g = suspended()
    plain = inspect.format_tree()
    inspect.set_name(g, name)
    text = inspect.format_tree()
    assert text.count("\n") == plain.count("\n")
    assert name not in text
    assert name.encode("unicode_escape").decode() in text
    text.encode()


def test_recordings_take_any_name() -> None:
    timeline.start()
    g = suspended()
    inspect.set_name(g, "\ud800\0\n</script>")
    g.switch()
    recording = timeline.stop()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("html", "json", "json.gz"):
            path = os.path.join(folder, f"timeline.{kind}")
            recording.save(path)
            assert os.path.getsize(path) > 100


def test_greenlets_that_change_parents_during_the_look_are_all_shown() -> None:
    def view(id: int, parent: int) -> inspect.GreenletView:
        return inspect.GreenletView(id, f"g{id}", "greenlet", "suspended", False, parent)

    circle = [view(1, 3), view(2, 1), view(3, 2), view(4, 3), view(5, 0)]
    lines = [*_view.format_tree([inspect.ThreadView(1, 1, "t", circle)], group=False)]
    assert len(lines) == 1 + len(circle)
    for one in circle:
        assert sum(f" {one.name} " in line for line in lines) == 1


def test_counts_and_lists_agree_also_while_a_greenlet_starts() -> None:
    differences: list[object] = []

    class Looks:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            listed, counted = len(inspect.all_greenlets()), inspect.count().alive
            if listed != counted:
                differences.append((listed, counted))

    class Replaces(greenlet):
        def run(self) -> None: ...

    Replaces(Looks()).switch()
    assert differences == []


def test_the_origin_of_a_greenlet_is_found_as_fast_on_a_deep_stack() -> None:
    def seconds(depth: int) -> float:
        if depth:
            return seconds(depth - 1)
        start = time.perf_counter()
        for _ in range(2_000):
            greenlet(waits)
        return time.perf_counter() - start

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    previous = inspect.track_origin(1)
    try:
        assert min(seconds(10_000) for _ in range(3)) < 10 * min(seconds(0) for _ in range(3))
    finally:
        inspect.track_origin(previous)
        sys.setrecursionlimit(limit)


# --- threads ------------------------------------------------------------------------------------


def dict_of_thread_state() -> Any:
    """The dict that owns the greenlets of the thread."""
    get = ctypes.pythonapi.PyThreadState_GetDict
    get.restype = ctypes.c_void_p
    return ctypes.cast(get(), ctypes.py_object).value


def test_a_thread_whose_state_has_ended_is_not_looked_at() -> None:
    """The dict of a thread state may outlive it. The memory of the state was read then."""
    kept: list[Any] = []

    def body() -> None:
        kept.extend([suspended(), getcurrent(), dict_of_thread_state()])

    before = inspect.count()
    for _ in range(10):
        in_thread(body)
    try:
        assert inspect.count() == before
        assert not [g for g in inspect.all_greenlets() if g in kept[:-1]]
        for g in kept:
            if isinstance(g, greenlet):
                assert inspect.describe(g).thread is None
                assert inspect.stack(g) == ()
        with tempfile.TemporaryFile("w+") as file:
            inspect.dump(file)
            file.seek(0)
            text = file.read()
        assert text.count("Thread ") == len(before.by_thread)
        timeline.start()
        assert len(timeline.stop().threads) == len(before.by_thread)
        assert inspect.format_tree().count("thread ") == len(before.by_thread)
    finally:
        kept.clear()


@pytest.mark.skipif(not FREE_THREADED, reason="the others cannot run meanwhile")
def test_variables_of_threads_that_run_are_not_looked_at() -> None:
    run_clean(
        """
        import threading, time
        from greenlet import getcurrent, greenlet, inspect
        stop = time.monotonic() + 4
        def body():
            def work():
                while time.monotonic() < stop:
                    one, other = [object()], {1: str(time.time())}
                    main.switch()
                    one = other = None
                    for i in range(5):
                        one = [object()]
                        other = (one,)
            main = getcurrent()
            family = [greenlet(work) for _ in range(5)]
            while time.monotonic() < stop:
                for g in family:
                    g.switch()
        threads = [threading.Thread(target=body) for _ in range(2)]
        [thread.start() for thread in threads]
        while time.monotonic() < stop:
            inspect.to_json(variables=True)
        [thread.join() for thread in threads]
        """,
        timeout=60,
    )


REPLACED = """
import threading, time
from greenlet import getcurrent, greenlet, inspect
# What gevent and eventlet do: threads become something that never runs beside this one.
import _thread
def start_new_thread(function, args, kwargs={}, **options):
    raise RuntimeError("a greenlet, not a thread")
names = ("start_new_thread", "_start_new_thread", "start_joinable_thread", "_start_joinable_thread")
for module in (_thread, threading):
    for name in names:
        if hasattr(module, name):
            setattr(module, name, start_new_thread)
class Replaced(threading.Thread):
    ident = property(lambda self: id(getcurrent()))
main, threading.Thread = threading.main_thread(), Replaced
threading._active = {1: main}
g = greenlet(getcurrent().switch)
g.switch()
"""


def test_a_watch_is_a_thread_where_an_event_loop_has_replaced_threads() -> None:
    run_clean(
        REPLACED
        + """
found = []
with inspect.watch(0.05, found.append):
    end = time.monotonic() + 20
    while not found and time.monotonic() < end:
        pass
assert found[0].thread_name == "MainThread", found
assert inspect.format_tree().splitlines()[0].endswith(" MainThread, 2 greenlets")
assert len(inspect.all_greenlets(main)) == 2
"""
    )


# --- watches ------------------------------------------------------------------------------------


def test_two_watches_do_not_mistake_each_others_looks() -> None:
    """The slower one reported threads that had not switched since the faster one's last look."""
    found: list[inspect.HeldUp] = []
    other = suspended()
    g = greenlet(lambda: [to_parent() for _ in iter(int, 1)])
    g.switch()
    with inspect.watch(0.6, found.append), inspect.watch(0.02, lambda held: None):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            time.sleep(0.1)
            g.switch()
    assert [each.seconds for each in found if each.thread == threading.get_ident()] == []
    g.throw()
    del other


def test_a_watch_goes_on_whatever_its_callback_raises() -> None:
    calls = []

    def fails(found: inspect.HeldUp) -> None:
        calls.append(found)
        raise SystemExit

    def blocks() -> None:
        other = suspended()
        end = time.monotonic() + 20
        while len(calls) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        del other

    with Unraisable() as unraisable, inspect.watch(0.02, fails):
        in_thread(blocks)  # in which no other test has made the main greenlet a scheduler
    assert len(calls) >= 3
    assert set(unraisable.types) == {SystemExit}


def test_a_watch_may_be_stopped_by_its_callback_and_twice() -> None:
    run_clean(
        """
        import threading, time
        from greenlet import getcurrent, greenlet, inspect
        g = greenlet(getcurrent().switch)
        g.switch()
        def stops(found):
            watch.stop()
            stopped.set()
        stopped = threading.Event()
        watch = inspect.watch(0.02, stops)
        assert stopped.wait(20)
        watch.stop()
        watch.stop()
        inspect.watch(0.01, lambda found: time.sleep(1000))  # is no reason not to exit
        time.sleep(0.05)
        """,
        timeout=60,
    )


def test_a_watch_may_be_stopped_in_a_fork() -> None:
    run_clean(
        """
        import os, time, warnings
        from greenlet import inspect
        warnings.simplefilter("ignore")  # of forks in programs with threads
        with inspect.watch(0.01, lambda found: None):
            time.sleep(0.05)
            child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        timeout=60,
    )


# --- tracing, errors, signals -------------------------------------------------------------------


def test_a_callback_that_sets_another_one_and_raises_does_not_remove_it() -> None:
    told: list[str] = []

    def first(event: str, pair: object) -> None:
        settrace(lambda event, pair: told.append(event), all_threads=True)
        raise KeyError("traced")

    settrace(first, all_threads=True)
    try:
        with pytest.raises(KeyError):
            suspended()
        greenlet(int).switch()
        assert told
    finally:
        settrace(None, all_threads=True)


def test_an_interrupt_in_a_hint_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(g: greenlet) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "get_name", interrupted)
    parent = greenlet(waits)
    child = greenlet(waits, parent)
    with pytest.raises(KeyboardInterrupt) as failure:
        parent.parent = child
    assert isinstance(failure.value.__context__, ValueError)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"])
def test_signals_of_crashes_do_not_dump(name: str) -> None:
    """The handler would return into the fault, and be called for ever."""
    with pytest.raises(OSError, match="Invalid argument"):
        inspect.dump_on_signal(getattr(signal, name), sys.__stderr__)


def test_a_signal_dumps_after_another_handler_was_set_and_that_stays() -> None:
    previous = signal.getsignal(signal.SIGUSR1)
    heard: list[int] = []
    try:
        with tempfile.TemporaryFile("w+") as file:
            inspect.dump_on_signal(signal.SIGUSR1, file)
            signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
            inspect.dump_on_signal(signal.SIGUSR1, file)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert file.seek(0, os.SEEK_END) > 0
            assert heard == []
            signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
            assert inspect.no_dump_on_signal(signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_dump_without_stderr_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(RuntimeError, match=r"sys\.stderr is None"):
        inspect.dump()
    with pytest.raises(RuntimeError, match=r"sys\.stderr is None"):
        inspect.dump_on_signal(signal.SIGUSR2)
