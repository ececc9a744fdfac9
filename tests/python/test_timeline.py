"""greenlet.timeline: every switch is recorded, with names that outlive the greenlets."""

from __future__ import annotations

import ctypes
import gc
import gzip
import json
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from greenlet import (
    _C_API,
    GreenletExit,
    _greenlet,
    getcurrent,
    greenlet,
    inspect,
    settrace,
    timeline,
)
from helpers import (
    FREE_THREADED,
    ON_WINDOWS,
    TIME_SCALE,
    collect,
    in_thread,
    memory_is_given_back,
    parallelize,
    run_clean,
    to_parent,
)
from timeline_checks import check, check_trace_events


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No recording is left, and no greenlet of another test is in one."""
    collect()
    for g in inspect.all_greenlets(threading.get_ident())[1:]:
        g.throw()  # a cycle through functools.partial, which CPython 3.15 holds on the C stack
    yield
    timeline._discard()


def recorded(action: Callable[[], object], **options: Any) -> timeline.Recording:
    timeline.start(**options)
    try:
        action()
    finally:
        recording = timeline.stop()
    check(recording)
    return recording


def names(recording: timeline.Recording) -> list[tuple[str, str]]:
    """From which greenlet to which each switch went."""
    labels = [one.name for one in recording.greenlets]
    return [(labels[event.origin], labels[event.target]) for event in recording.events()]


def one(recording: timeline.Recording, name: str) -> timeline.GreenletTrack:
    [found] = (greenlet for greenlet in recording.greenlets if greenlet.name == name)
    return found


def returns() -> None:
    pass


def waits() -> None:
    to_parent()


def waiting() -> greenlet:
    g = greenlet(waits)
    g.switch()
    return g


# --- switches -------------------------------------------------------------------------------------


def test_every_switch_is_there_in_order() -> None:
    def action() -> None:
        g = waiting()
        greenlet(returns).switch()
        g.switch()

    recording = recorded(action)
    assert names(recording) == [
        ("main", "waits"),
        ("waits", "main"),
        ("main", "returns"),
        ("returns", "main"),
        ("main", "waits"),
        ("waits", "main"),
    ]
    assert [event.finished for event in recording.events()] == [False] * 3 + [True, False, True]
    assert not any(event.thrown for event in recording.events())
    assert recording.switches == 6
    assert recording.lost == 0
    assert recording.complete_until is None


def test_times_rise_and_lie_within_the_recording() -> None:
    def action() -> None:
        g = waiting()
        time.sleep(0.02)
        g.switch()

    before = time.monotonic_ns()
    recording = recorded(action)
    took = time.monotonic_ns() - before
    times = [event.time for event in recording.events()]
    assert times == sorted(times)
    assert times[2] - times[1] >= 19_000_000
    assert times[-1] <= recording.duration <= took
    assert abs(recording.started_at - time.time()) < 60 * TIME_SCALE


def test_exceptions_are_thrown_switches() -> None:
    def action() -> None:
        g = waiting()
        with pytest.raises(KeyError):
            g.throw(KeyError)
        g = waiting()
        g.throw(GreenletExit)

    events = [*recorded(action).events()]
    assert [event.thrown for event in events] == [
        *(False, False, True, True),
        *(False, False, True, False),
    ]
    assert [event.finished for event in events] == [False, False, False, True] * 2


def test_a_switch_to_oneself_is_one() -> None:
    assert names(recorded(lambda: getcurrent().switch())) == [("main", "main")]


def test_the_death_of_a_dropped_greenlet_is_recorded() -> None:
    def action() -> None:
        g = waiting()
        del g
        collect()

    recording = recorded(action)
    assert names(recording)[2:] == [("main", "waits"), ("waits", "main")]
    assert one(recording, "waits").finished


def test_the_trace_callback_is_called_as_well() -> None:
    calls: list[str] = []
    settrace(lambda event, pair: calls.append(event))
    try:
        recording = recorded(lambda: greenlet(returns).switch())
    finally:
        settrace(None)
    assert len(calls) == 2
    assert recording.switches == 2


def test_switches_in_a_trace_callback_are_recorded() -> None:
    depth = 0

    def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
        nonlocal depth
        if depth == 0:
            depth += 1
            greenlet(returns).switch()
            depth -= 1

    settrace(callback)
    try:
        recording = recorded(lambda: greenlet(returns).switch())
    finally:
        settrace(None)
    assert recording.switches == 6


def test_nothing_is_recorded_before_and_after() -> None:
    greenlet(returns).switch()
    recording = recorded(returns)
    greenlet(returns).switch()
    assert recording.switches == 0
    assert [*recording.events()] == []


def test_a_recording_that_begins_and_ends_inside_of_greenlets() -> None:
    found: list[timeline.Recording] = []

    def begin() -> None:
        timeline.start()
        to_parent()

    def end() -> None:
        found.append(timeline.stop())

    first = greenlet(begin)
    first.switch()
    first.switch()
    greenlet(end).switch()
    [recording] = found
    check(recording)
    inside, ending = begin.__qualname__, end.__qualname__
    assert names(recording) == [
        (inside, "main"),
        ("main", inside),
        (inside, "main"),
        ("main", ending),
    ]
    assert one(recording, inside).was_there
    assert not one(recording, ending).was_there


# --- greenlets ------------------------------------------------------------------------------------


class Named(greenlet):
    def __init__(self, run: Callable[..., object], name: str) -> None:
        super().__init__(run)
        self.name = name


class Method(greenlet):
    def run(self) -> None:
        to_parent()


class GivenByAttribute(greenlet):
    """As gevent does it: a method that calls the attribute _run."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__()
        self._run = run

    def run(self) -> None:
        run = self._run
        del self._run
        run()


class GivenAsArgument(greenlet):
    """As eventlet does it: a method that calls its first argument."""

    def __init__(self) -> None:
        super().__init__(self.main)

    def main(self, run: Callable[[], None]) -> None:
        run()


class Instance:
    def __call__(self) -> None:
        pass


def test_what_greenlets_run_gives_their_names() -> None:
    def action() -> None:
        greenlet(returns).switch()
        greenlet(partial(partial(waits))).switch()
        Method().switch()
        GivenByAttribute(returns).switch()
        GivenAsArgument().switch(returns)
        greenlet(Instance()).switch()
        greenlet([].clear).switch()
        greenlet(dict).switch()
        greenlet(len).switch([])

    recording = recorded(action)
    assert [(each.name, each.function, each.type) for each in recording.greenlets][1:] == [
        ("returns", "returns", "greenlet"),
        ("waits", "waits", "greenlet"),
        ("Method.run", "Method.run", "Method"),
        ("returns", "returns", "GivenByAttribute"),
        ("returns", "returns", "GivenAsArgument"),
        ("Instance", "Instance", "greenlet"),
        ("list.clear", "list.clear", "greenlet"),
        ("dict", "dict", "greenlet"),
        ("len", "len", "greenlet"),
    ]


def test_given_names_come_first() -> None:
    def action() -> None:
        named = greenlet(returns)
        inspect.set_name(named, "by set_name")
        named.switch()
        Named(returns, "by attribute").switch()
        late = greenlet(waits)
        late.switch()
        inspect.set_name(late, "late")
        late.switch()

    recording = recorded(action)
    assert [each.name for each in recording.greenlets] == [
        *("main", "by set_name", "by attribute", "late")
    ]
    assert one(recording, "by set_name").function == "returns"


def test_a_greenlet_that_lives_has_the_name_that_it_has_at_the_end() -> None:
    alive: list[greenlet] = []

    def action() -> None:
        alive.append(waiting())
        inspect.set_name(alive[0], "renamed")

    assert one(recorded(action), "renamed").function == "waits"


def test_names_are_kept_and_greenlets_are_not() -> None:
    class Kept:
        def method(self) -> None:
            pass

    gone: list[weakref.ref[Any]] = []

    def action() -> None:
        kept = Kept()
        g = greenlet(kept.method)
        gone.extend(map(weakref.ref, (g, kept)))
        g.switch()
        del g, kept
        collect()
        assert [each() for each in gone] == [None] * 2

    recording = recorded(action)
    assert recording.greenlets[1].name.endswith("Kept.method")


@memory_is_given_back
def test_an_address_that_is_used_again_is_another_greenlet() -> None:
    addresses: list[int] = []

    def action() -> None:
        for i in range(200):
            g = greenlet(returns if i % 2 else len)
            addresses.append(id(g))
            g.switch(*([] if i % 2 else [""]))
            del g

    recording = recorded(action)
    assert len(set(addresses)) < len(addresses)
    assert [each.id for each in recording.greenlets[1:]] == addresses
    assert [each.name for each in recording.greenlets[1:]] == ["len", "returns"] * 100


def test_greenlets_that_do_not_switch_are_there_too() -> None:
    g = waiting()
    inspect.set_name(g, "idle")
    recording = recorded(returns)
    idle = one(recording, "idle")
    assert idle.was_there
    assert not idle.finished
    assert idle.id == id(g)
    assert one(recording, "main").is_main
    assert recording.threads[0].running == one(recording, "main").number


def test_a_scheduler_is_marked() -> None:
    def action() -> None:
        hub = greenlet(waits)
        hub.switch()
        child = greenlet(returns)
        child.parent = hub
        child.switch()
        hub.switch()

    recording = recorded(action)
    assert one(recording, "waits").is_scheduler
    assert not one(recording, "returns").is_scheduler


@pytest.mark.parametrize("first", ["its first switch", "its first child"])
def test_a_scheduler_of_a_thread_that_has_ended_is_marked(first: str) -> None:
    def action() -> None:
        hub = greenlet(waits)
        hub.itself = hub  # type: ignore[attr-defined]  # so that it is there when the thread ends
        child = greenlet(returns, hub) if first == "its first child" else greenlet(returns)
        hub.switch()
        child.parent = hub

    with timeline.record() as recording:
        in_thread(action)
        collect()
    assert one(recording, "waits").is_scheduler


def test_numbers_of_an_earlier_recording_do_not_count() -> None:
    g = waiting()
    first = recorded(lambda: waiting())
    second = recorded(g.switch)
    assert [each.number for each in second.greenlets] == [*range(len(second.greenlets))]
    assert names(second) == [("main", "waits"), ("waits", "main")]
    assert names(first) == names(first)


# --- hostile names --------------------------------------------------------------------------------


class Hostile(str):
    """Runs Python code wherever somebody looks at it."""

    calls: list[str] = []  # noqa: RUF012

    def __str__(self) -> str:
        self.calls.append("str")
        raise RuntimeError

    __repr__ = __str__
    __hash__ = str.__hash__
    __iter__ = __len__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        self.calls.append("eq")
        raise RuntimeError

    def __del__(self) -> None:
        self.calls.append("del")
        greenlet(returns).switch()


def test_names_run_no_code_during_the_recording() -> None:
    class Odd(greenlet):
        def __getattribute__(self, name: str) -> Any:
            if name == "name":
                calls.append(name)
                greenlet(returns).switch()
                raise SystemError
            return super().__getattribute__(name)

        def __repr__(self) -> str:
            raise RuntimeError

    class Key:
        def __hash__(self) -> int:
            return hash("name")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    calls: list[str] = []
    odd = Odd(returns)
    attributes: dict[Any, Any] = odd.__dict__
    attributes[Key()] = 1
    attributes["_run"] = Key()
    dead = Odd(returns)
    dead.__dict__[Hostile("name")] = Hostile("a name")
    alive = Odd(waits)

    def action() -> None:
        odd.switch()
        dead.switch()
        alive.switch()
        assert calls == []

    recording = recorded(action)
    assert recording.greenlets[1].name == "returns"
    assert recording.greenlets[2].name == "returns"
    assert recording.greenlets[3].name == "waits"


def test_strings_of_other_classes_become_strings() -> None:
    def action() -> None:
        g = greenlet(returns)
        inspect.set_name(g, Hostile("set"))
        g.switch()
        Named(returns, Hostile("attribute")).switch()

        def run() -> None:
            pass

        run.__qualname__ = Hostile("qualname")
        greenlet(run).switch()

    Hostile.calls.clear()
    recording = recorded(action)
    found = [each.name for each in recording.greenlets]
    assert [name for name in found if name != "returns"] == [
        *("main", "set", "attribute", "qualname")
    ]
    assert {type(name) for name in found} == {str}
    assert set(Hostile.calls) <= {"del"}


# --- threads --------------------------------------------------------------------------------------


def test_all_threads_are_recorded_with_their_names() -> None:
    in_both = threading.Barrier(2)

    def old() -> None:
        greenlet(returns).switch()
        in_both.wait()  # the recording begins
        in_both.wait()
        greenlet(returns).switch()

    before = threading.Thread(target=old, name="was there")
    before.start()
    in_both.wait()

    def action() -> None:
        in_both.wait()
        new = threading.Thread(target=lambda: greenlet(waits).switch(), name="came later")
        new.start()
        new.join()
        before.join()
        greenlet(returns).switch()

    recording = recorded(action)
    found = {thread.name: thread for thread in recording.threads}
    assert set(found) == {"MainThread", "was there", "came later"}
    assert found["MainThread"].begin == found["was there"].begin == 0
    assert found["came later"].begin > 0
    assert found["MainThread"].end is None
    for name in ("was there", "came later"):
        end = found[name].end
        assert end is not None
        assert found[name].begin < end <= recording.duration
        if ON_WINDOWS:
            assert found[name].processor_time is None
        else:
            assert (found[name].processor_time or 0) > 0
    # The greenlet that still waits is killed when its thread ends.
    assert found["came later"].switches == 4
    assert found["was there"].switches == 2
    assert found["MainThread"].native_id == threading.main_thread().native_id


def test_greenlets_of_other_threads_that_do_not_switch_are_there() -> None:
    barrier = threading.Barrier(2)

    def other() -> None:
        g = waiting()
        barrier.wait()
        barrier.wait()
        g.switch()

    thread = threading.Thread(target=other)
    thread.start()
    barrier.wait()
    recording = recorded(returns)
    barrier.wait()
    thread.join()
    [idle] = (each for each in recording.greenlets if each.name == "waits")
    assert recording.threads[idle.thread].ident == thread.ident
    running = recording.threads[idle.thread].running
    assert running is not None
    assert recording.greenlets[running].is_main


def test_no_switch_of_a_storm_is_missing() -> None:
    turns, each = 50, 20

    def storm(index: int) -> None:
        for _ in range(turns):
            family = [greenlet(waits) for _ in range(each)]
            for g in family:
                g.switch()
            for g in family:
                g.switch()

    recording = recorded(lambda: parallelize(storm, threads=8))
    finished = Counter(event.thread for event in recording.events() if event.finished)
    assert sorted(finished.values()) == [turns * each] * 8
    assert recording.switches == 8 * turns * each * 4


def test_stop_and_start_during_a_storm() -> None:
    ending = threading.Event()
    recordings: list[timeline.Recording] = []

    def storm(index: int) -> None:
        if index == 0:
            for _ in range(20):
                timeline.start(limit=20_000)
                time.sleep(0.002)
                recordings.append(timeline.stop())
            ending.set()
        while not ending.is_set():
            family = [greenlet(waits) for _ in range(20)]
            for g in family:
                g.switch()
            for g in family:
                g.switch()

    parallelize(storm, threads=8)
    for recording in recordings:
        check(recording)
    assert sum(recording.switches for recording in recordings) > 100


def test_threads_that_come_and_go_during_recordings() -> None:
    ending = threading.Event()
    recordings: list[timeline.Recording] = []

    def storm(index: int) -> None:
        if index == 0:
            for _ in range(15):
                timeline.start(limit=20_000)
                time.sleep(0.002)
                recordings.append(timeline.stop())
            ending.set()
        while not ending.is_set():
            in_thread(lambda: waiting().switch())

    parallelize(storm, threads=4)
    for recording in recordings:
        check(recording)


# --- limits ---------------------------------------------------------------------------------------


def test_the_limit_keeps_the_first_switches_and_counts_the_others() -> None:
    def run() -> None:
        for _ in range(5_000):
            to_parent()

    def action() -> None:
        g = greenlet(run)
        while not g.dead:
            g.switch()

    recording = recorded(action, limit=3_000)
    assert 2_900 < recording.switches <= 3_000
    assert recording.switches + recording.lost == 2 * 5_001
    complete = recording.complete_until
    assert complete is not None
    assert max(event.time for event in recording.events()) <= complete < recording.duration


def test_the_limit_bounds_the_greenlets_too() -> None:
    recording = recorded(lambda: [greenlet(returns).switch() for _ in range(10_000)], limit=2_000)
    assert len(recording.greenlets) < 700
    assert recording.switches + recording.lost == 20_000


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 50])
def test_small_limits(limit: int) -> None:
    recording = recorded(lambda: [greenlet(returns).switch() for _ in range(20)], limit=limit)
    assert recording.switches <= limit
    assert recording.switches + recording.lost == 40


def test_a_limit_below_zero_is_no_limit() -> None:
    with pytest.raises(ValueError, match="-1"):
        timeline.start(limit=-1)
    assert not timeline.is_recording()


@memory_is_given_back
def test_memory_is_given_back_after_a_recording() -> None:
    run_clean(
        """
        from child import resident
        from greenlet import getcurrent, greenlet, timeline

        def waits():
            main = getcurrent().parent
            for _ in range(100):
                main.switch()

        def once():
            with timeline.record() as recording:
                for _ in range(20):
                    family = [greenlet(waits) for _ in range(50)]
                    for _ in range(101):
                        for g in family:
                            g.switch()
            assert recording.switches == 20 * 50 * 101 * 2
            del recording

        for _ in range(3):
            once()
        before = resident()
        for _ in range(10):
            once()
        grown = resident() - before
        assert grown < 6 << 20, grown
        """,
        timeout=120,
    )


# --- the interface --------------------------------------------------------------------------------


def test_one_recording_at_a_time() -> None:
    with timeline.record() as recording:
        with pytest.raises(RuntimeError, match="^a recording of switches is running already$"):
            timeline.start()
        with pytest.raises(RuntimeError, match="running already"), timeline.record():
            pass
        greenlet(returns).switch()
        assert timeline.is_recording()
    assert not timeline.is_recording()
    assert recording.switches == 2
    with pytest.raises(RuntimeError, match="^no recording of switches is running$"):
        timeline.stop()


def test_record_stops_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), timeline.record(tmp_path / "x.json") as recording:
        greenlet(returns).switch()
        raise KeyError
    assert not timeline.is_recording()
    assert recording.switches == 2
    assert (tmp_path / "x.json").exists()


def test_record_lets_the_block_stop_it(tmp_path: Path) -> None:
    with timeline.record() as recording:
        assert timeline.stop() is recording
    assert "0 switches" in repr(recording)


def switch_hook() -> Callable[[Any, Any], int]:
    """PyGreenlet_SetSwitchHook(), from the table of the C API."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(pointer(_C_API, b"greenlet._C_API"), ctypes.POINTER(ctypes.c_void_p))
    address = table[12]
    assert address is not None
    return ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(address)


def test_another_profiler_and_a_recording_exclude_each_other() -> None:
    set_hook = switch_hook()
    does_nothing = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p)
    assert set_hook(does_nothing, None) == 0
    with pytest.raises(RuntimeError, match="^another profiler has set the hook for switches"):
        timeline.start()
    assert set_hook(None, None) == 0
    with timeline.record() as recording:
        with pytest.raises(RuntimeError, match="another switch hook is set"):
            set_hook(does_nothing, None)
        greenlet(returns).switch()
    assert recording.switches == 2
    with timeline.record() as recording:
        greenlet(returns).switch()
        assert set_hook(None, None) == 0  # removes ours
        greenlet(returns).switch()
        assert set_hook(does_nothing, None) == 0
    assert recording.switches == 2
    with pytest.raises(RuntimeError, match="another profiler"):
        timeline.start()
    assert set_hook(None, None) == 0


def test_names_that_other_threads_change_during_a_recording() -> None:
    ending = threading.Event()
    shared: list[Any] = []

    class Attributes(greenlet):
        pass

    def storm(index: int) -> None:
        if index == 0:
            for _ in range(20):
                timeline.start(limit=20_000)
                time.sleep(0.002)
                recordings.append(timeline.stop())
            ending.set()
        count = 0
        while not ending.is_set():
            if index == 1:
                for g in shared[-20:]:
                    count += 1
                    inspect.set_name(g, f"set {count}" if count % 3 else None)
                    if count % 50 == 0:
                        g.__dict__.clear()
                    g.name = f"name {count}"
                    setattr(g, f"attribute{count % 100}", count)
            else:
                family = [Attributes(waits) for _ in range(10)]
                shared.extend(family)
                for g in family:
                    g.switch()
                for g in family:
                    g.switch()
                del shared[:-60]

    recordings: list[timeline.Recording] = []
    parallelize(storm, threads=4)
    for recording in recordings:
        check(recording)


def test_a_fork_is_not_recorded_in_the_child() -> None:
    run_clean(
        """
        import os, warnings
        from greenlet import greenlet, timeline
        warnings.simplefilter("ignore", DeprecationWarning)
        timeline.start()
        greenlet(lambda: None).switch()
        child = os.fork()
        if child == 0:
            assert not timeline.is_recording()
            greenlet(lambda: None).switch()
            with timeline.record() as recording:
                greenlet(lambda: None).switch()
            os._exit(recording.switches)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert timeline.stop().switches == 2
        """
    )


def test_forks_during_a_storm() -> None:
    run_clean(
        """
        import os, threading, warnings
        from greenlet import greenlet, getcurrent, timeline
        warnings.simplefilter("ignore", DeprecationWarning)

        def storm():
            while not ending:
                g = greenlet(lambda: getcurrent().parent.switch())
                g.switch()
                g.switch()

        ending = []
        threads = [threading.Thread(target=storm) for _ in range(3)]
        for thread in threads:
            thread.start()
        timeline.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                with timeline.record() as recording:
                    greenlet(lambda: None).switch()
                os._exit(recording.switches)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        ending.append(True)
        for thread in threads:
            thread.join()
        timeline.stop()
        """,
        timeout=60,
    )


def test_a_program_may_end_while_a_recording_runs() -> None:
    run_clean(
        """
        import threading
        from greenlet import greenlet, getcurrent, timeline
        timeline.start()
        g = greenlet(lambda: getcurrent().parent.switch())
        g.switch()
        threading.Thread(target=lambda: threading.Event().wait(), daemon=True).start()
        """
    )


def test_each_interpreter_has_recordings_of_its_own() -> None:
    run_clean(
        """
        from child import Interpreter
        from greenlet import greenlet, timeline

        SOURCE = '''
        from greenlet import greenlet, timeline
        assert not timeline.is_recording()
        with timeline.record() as recording:
            for _ in range(5):
                greenlet(lambda: None).switch()
        assert recording.switches == 10, recording
        timeline.start()
        greenlet(lambda: None).switch()
        '''
        with timeline.record() as recording:
            for _ in range(3):
                other = Interpreter(own_gil=False)
                other.run(SOURCE)
                greenlet(lambda: None).switch()
                other.close()
        assert recording.switches == 6, recording
        """
    )


@pytest.mark.skipif(FREE_THREADED, reason="counts allocations of one thread")
def test_without_memory_nothing_is_left_running() -> None:
    testcapi = pytest.importorskip("_testcapi")
    main = getcurrent()
    family = [greenlet(main.switch) for _ in range(3)]
    outcomes: set[str] = set()
    for allowed in range(400):
        testcapi.set_nomemory(allowed, 0)
        try:
            _greenlet._timeline_start(100, partial, partial)
            for g in family:
                g.switch()
            _greenlet._timeline_stop()
            outcome = "done"
        except MemoryError:
            outcome = "no memory"
        finally:
            testcapi.remove_mem_hooks()
        outcomes.add(outcome)
        timeline._discard()
        assert not timeline.is_recording()
        family = [greenlet(main.switch) for _ in range(3)]
    assert outcomes == {"done", "no memory"}


# --- files ----------------------------------------------------------------------------------------


def busy() -> None:
    def fails() -> None:
        to_parent()
        raise KeyError

    def other() -> None:
        g = waiting()
        greenlet(returns).switch()
        g.switch()

    family = [waiting() for _ in range(5)]
    inspect.set_name(family[0], '</script><script>alert("x")</script>\ud800 ü')
    bad = greenlet(fails)
    bad.switch()
    for g in family:
        g.switch()
    with pytest.raises(KeyError):
        bad.switch()
    in_thread(other)


@pytest.mark.parametrize("arrows", [True, False])
def test_trace_events_follow_the_rules_of_the_format(
    arrows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenlet._timeline_files.MOST_ARROWS", 100 if arrows else 0)
    recording = recorded(busy)
    recording.save(tmp_path / "x.json")
    data = json.loads((tmp_path / "x.json").read_text())
    check_trace_events(data, recording, arrows=arrows)
    recording.save(tmp_path / "x.json.gz")
    with gzip.open(tmp_path / "x.json.gz", "rt") as file:
        assert json.load(file) == data


def test_the_page_holds_the_recording_and_nothing_that_a_name_says(tmp_path: Path) -> None:
    recording = recorded(busy)
    recording.title = "<b>&title"
    recording.save(tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert text.count("</script>") == text.count("<script")
    assert "<b>" not in text
    assert "alert(" in text  # the name is there, but as data
    assert "<title>&lt;b&gt;&amp;title" in text
    assert "{{" not in text.partition("<script>")[0]
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    data = json.loads(text.partition('id="recording">')[2].partition("</script>")[0])
    assert data["switches"] == recording.switches
    assert data["greenlets"]["count"] == len(recording.greenlets)
    assert '</script><script>alert("x")</script>\ud800 ü' in data["strings"]


def test_a_page_without_zlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recorded(busy)
    monkeypatch.setitem(__import__("sys").modules, "zlib", None)
    recording.save(tmp_path / "x.html")
    assert '"packed":"plain"' in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_other_names_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html, \.json or \.json\.gz"):
        recorded(returns).save(tmp_path / "x.txt")


def test_an_empty_recording_can_be_saved(tmp_path: Path) -> None:
    for recording in (recorded(returns), timeline.Recording()):
        recording.save(tmp_path / "x.html")
        recording.save(tmp_path / "x.json")
        check_trace_events(json.loads((tmp_path / "x.json").read_text()), recording, arrows=True)


def test_a_recording_does_not_keep_the_collector_busy() -> None:
    recording = recorded(lambda: [greenlet(returns).switch() for _ in range(100)])
    assert not any(isinstance(each, greenlet) for each in gc.get_referents(recording.__dict__))
