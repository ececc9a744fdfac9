"""sys.settrace, sys.setprofile and sys.monitoring stay right when greenlets switch."""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import frames_are_instrumented_anew, run_clean, since, to_parent

TOOL = 4


@pytest.fixture(autouse=True)
def the_hooks_of_the_test_runner_come_back() -> Iterator[None]:
    trace, profile = sys.gettrace(), sys.getprofile()
    yield
    sys.settrace(trace)
    sys.setprofile(profile)


def traced(
    body: Callable[[], Any], interesting: set[str], *, lines: bool = False
) -> list[tuple[str, str]]:
    """Events that sys.settrace delivers for the functions named in `interesting`."""
    log: list[tuple[str, str]] = []

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name not in interesting:
            return None
        if event != "line" or lines:
            log.append((event, frame.f_code.co_name))
        return tracer

    sys.settrace(tracer)
    try:
        body()
    finally:
        sys.settrace(None)
    return log


def profiled(body: Callable[[], Any], interesting: set[str]) -> list[tuple[str, str]]:
    """Call and return events that sys.setprofile delivers for the functions in `interesting`."""
    log: list[tuple[str, str]] = []

    def profiler(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code.co_name in interesting and event in ("call", "return"):
            log.append((event, frame.f_code.co_name))

    sys.setprofile(profiler)
    try:
        body()
    finally:
        sys.setprofile(None)
    return log


def two_greenlets() -> None:
    main = getcurrent()

    def first() -> None:
        first_inner()

    def first_inner() -> None:
        main.switch()

    def second() -> None:
        second_inner()

    def second_inner() -> None:
        main.switch()

    a, b = greenlet(first), greenlet(second)
    a.switch()
    b.switch()
    a.switch()
    b.switch()


CALLS_OF_TWO_GREENLETS = [
    ("call", "first"),
    ("call", "first_inner"),
    ("call", "second"),
    ("call", "second_inner"),
    ("return", "first_inner"),
    ("return", "first"),
    ("return", "second_inner"),
    ("return", "second"),
]
NAMES = {name for _, name in CALLS_OF_TWO_GREENLETS}


def test_settrace_sees_calls_and_returns_of_every_greenlet_in_the_order_they_run() -> None:
    assert traced(two_greenlets, NAMES) == CALLS_OF_TWO_GREENLETS


def test_setprofile_sees_calls_and_returns_of_every_greenlet_in_the_order_they_run() -> None:
    assert profiled(two_greenlets, NAMES) == CALLS_OF_TWO_GREENLETS


def test_settrace_sees_the_lines_after_a_switch() -> None:
    main = getcurrent()

    def body() -> None:
        value = 1
        main.switch()
        value = 2
        main.switch()
        del value

    g = greenlet(body)

    def drive() -> None:
        g.switch()
        g.switch()
        g.switch()

    log = traced(drive, {"body"}, lines=True)
    assert log == [("call", "body"), *[("line", "body")] * 5, ("return", "body")]


def test_settrace_sees_an_exception_that_is_thrown_in() -> None:
    main = getcurrent()

    def body() -> None:
        try:
            main.switch()
        except KeyError:
            pass

    g = greenlet(body)

    def drive() -> None:
        g.switch()
        g.throw(KeyError)

    assert traced(drive, {"body"}) == [
        ("call", "body"),
        ("exception", "body"),
        ("return", "body"),
    ]


def test_a_trace_function_set_inside_a_greenlet_goes_on_in_its_parent() -> None:
    log: list[str] = []

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        log.append(frame.f_code.co_name)

    def body() -> None:
        sys.settrace(tracer)

    def afterwards() -> None: ...

    greenlet(body).switch()
    active = sys.gettrace()
    afterwards()
    sys.settrace(None)
    # A trace function belongs to the thread, whatever greenlet sets it.
    assert active is tracer
    assert "afterwards" in log


@frames_are_instrumented_anew
def test_a_trace_function_removed_in_a_greenlet_stays_removed() -> None:
    log: list[str] = []

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        log.append(frame.f_code.co_name)

    def body() -> None:
        sys.settrace(None)

    def afterwards() -> None: ...

    sys.settrace(tracer)
    greenlet(body).switch()
    removed = sys.gettrace()
    afterwards()
    assert removed is None
    assert "afterwards" not in log


@frames_are_instrumented_anew
def test_a_greenlet_that_a_trace_function_switches_to_is_not_left_untraced_afterwards() -> None:
    log: list[str] = []

    def helper() -> None:
        while True:
            main.switch()

    main = getcurrent()
    g = greenlet(helper)
    g.switch()

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name == "traced_function":
            log.append(event)
            g.switch()
        return None

    def traced_function() -> None: ...

    sys.settrace(tracer)
    for _ in range(3):
        traced_function()
    sys.settrace(None)
    assert log == ["call"] * 3
    g.throw()


def test_a_greenlet_started_by_a_profile_function_does_not_silence_the_profile() -> None:
    log: list[str] = []

    def profiler(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_name == "profiled_function":
            log.append(greenlet(lambda: "started").switch())

    def profiled_function() -> None: ...

    sys.setprofile(profiler)
    for _ in range(3):
        profiled_function()
    sys.setprofile(None)
    assert log == ["started"] * 3


def test_nothing_is_traced_while_a_trace_function_is_under_way() -> None:
    # In other greenlets, too: gevent relies on it where trace functions use locks.
    log: list[str] = []
    main = getcurrent()

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        name = frame.f_code.co_name
        if name in ("leaves_while_traced", "other"):
            log.append(name)
        if name == "leaves_while_traced":
            main.switch()
        return None

    def leaves_while_traced() -> None: ...

    def other() -> None: ...

    g = greenlet(leaves_while_traced)
    sys.settrace(tracer)
    g.switch()
    other()
    g.switch()
    other()
    sys.settrace(None)
    assert log == ["leaves_while_traced", "other"]
    assert g.dead


def test_a_deterministic_profile_counts_every_call_once() -> None:
    def worker() -> None:
        for _ in range(10):
            step()

    def step() -> None:
        to_parent()

    family = [greenlet(worker) for _ in range(5)]

    def drive() -> None:
        while not all(g.dead for g in family):
            for g in family:
                g.switch()

    profile = cProfile.Profile()
    profile.runcall(drive)
    stats: Any = pstats.Stats(profile)
    calls = {name: entry[1] for (_, _, name), entry in stats.stats.items()}
    assert calls["worker"] == 5
    assert calls["step"] == 50


def test_hooks_of_threading_reach_the_greenlets_of_new_threads() -> None:
    log: list[str] = []

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name == "in_greenlet":
            log.append(event)
        return None

    def in_greenlet() -> None: ...

    threading.settrace(tracer)
    try:
        thread = threading.Thread(target=lambda: greenlet(in_greenlet).switch())
        thread.start()
        thread.join()
    finally:
        threading.settrace(None)
    assert log == ["call"]


def test_a_trace_function_with_a_thousand_switches_sees_balanced_events() -> None:
    main = getcurrent()

    def worker() -> None:
        for _ in range(100):
            step()

    def step() -> None:
        main.switch()

    def drive() -> None:
        family = [greenlet(worker) for _ in range(10)]
        while not all(g.dead for g in family):
            for g in family:
                g.switch()

    counts = Counter(traced(drive, {"worker", "step"}))
    assert counts == {
        ("call", "worker"): 10,
        ("return", "worker"): 10,
        ("call", "step"): 1_000,
        ("return", "step"): 1_000,
    }


def monitored(body: Callable[[], Any], interesting: set[str]) -> list[tuple[str, str]]:
    """Starts, returns and unwinds that sys.monitoring delivers for functions in `interesting`."""
    monitoring: Any = vars(sys)["monitoring"]
    log: list[tuple[str, str]] = []
    kinds = {
        monitoring.events.PY_START: "start",
        monitoring.events.PY_RETURN: "return",
        monitoring.events.PY_UNWIND: "unwind",
        monitoring.events.PY_YIELD: "yield",
        monitoring.events.PY_RESUME: "resume",
    }

    def recorder(kind: str) -> Callable[..., None]:
        def record(code: CodeType, *rest: object) -> None:
            if code.co_name in interesting:
                log.append((kind, code.co_name))

        return record

    monitoring.use_tool_id(TOOL, "greenlet tests")
    try:
        for event, kind in kinds.items():
            monitoring.register_callback(TOOL, event, recorder(kind))
        monitoring.set_events(TOOL, sum(kinds))
        body()
    finally:
        monitoring.set_events(TOOL, 0)
        for event in kinds:
            monitoring.register_callback(TOOL, event, None)
        monitoring.free_tool_id(TOOL)
    return log


@since("sys.monitoring")
def test_monitoring_sees_starts_and_returns_of_every_greenlet_in_the_order_they_run() -> None:
    expected = [
        ("start" if kind == "call" else kind, name) for kind, name in CALLS_OF_TWO_GREENLETS
    ]
    assert monitored(two_greenlets, NAMES) == expected


@since("sys.monitoring")
def test_monitoring_sees_the_unwinding_of_a_greenlet() -> None:
    main = getcurrent()

    def body() -> None:
        inner()

    def inner() -> None:
        main.switch()

    g = greenlet(body)

    def drive() -> None:
        g.switch()
        g.throw()

    assert monitored(drive, {"body", "inner"}) == [
        ("start", "body"),
        ("start", "inner"),
        ("unwind", "inner"),
        ("unwind", "body"),
    ]


@since("instrumentation of frames, for us")
def test_monitoring_that_begins_while_a_greenlet_waits_sees_its_next_lines() -> None:
    monitoring: Any = vars(sys)["monitoring"]
    lines: list[int] = []

    def body() -> str:
        to_parent()
        text = "one"
        return text

    def record(code: CodeType, line: int) -> None:
        if code is body.__code__:
            lines.append(line - code.co_firstlineno)

    g = greenlet(body)
    g.switch()
    monitoring.use_tool_id(TOOL, "greenlet tests")
    try:
        monitoring.register_callback(TOOL, monitoring.events.LINE, record)
        monitoring.set_events(TOOL, monitoring.events.LINE)
        assert g.switch() == "one"
    finally:
        monitoring.set_events(TOOL, 0)
        monitoring.register_callback(TOOL, monitoring.events.LINE, None)
        monitoring.free_tool_id(TOOL)
    assert lines == [2, 3]


@since("sys.monitoring")
def test_monitoring_sees_generators_that_switch() -> None:
    main = getcurrent()

    def generator() -> Any:
        main.switch()
        yield 1
        main.switch()

    def body() -> None:
        for _ in generator():
            pass

    g = greenlet(body)

    def drive() -> None:
        while not g.dead:
            g.switch()

    assert monitored(drive, {"generator", "body"}) == [
        ("start", "body"),
        ("start", "generator"),
        ("yield", "generator"),
        ("resume", "generator"),
        ("return", "generator"),
        ("return", "body"),
    ]


@since("sys.monitoring")
def test_a_monitoring_callback_may_switch() -> None:
    run_clean(
        """
        import sys
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        log = []

        def callback(code, offset):
            if code.co_name == "watched":
                log.append(greenlet(lambda: "new").switch())
                main.switch("from the callback")

        monitoring = sys.monitoring
        monitoring.use_tool_id(4, "test")
        monitoring.register_callback(4, monitoring.events.PY_START, callback)
        monitoring.set_events(4, monitoring.events.PY_START)

        def watched():
            return "returned"

        g = greenlet(watched)
        assert g.switch() == "from the callback"
        assert greenlet(lambda: 5).switch() == 5
        assert g.switch() == "returned"
        monitoring.set_events(4, 0)
        assert log == ["new"], log
        """
    )
