"""What suspended greenlets hold is collected: every shape of garbage of collection_cases.py."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from collection_cases import (
    CASES,
    HIDDEN_ARGUMENTS,
    HIDDEN_STACK,
    Case,
    Suspend,
    table,
)
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import FREE_THREADED, VERSION, Unraisable, run_clean, to_parent

THIS_VERSION = f"{VERSION[0]}.{VERSION[1]}"
DOCUMENT = Path(__file__).parents[2] / "docs" / "garbage-collection.md"


class Log:
    """What the parts of one case tell: in which threads."""

    def __init__(self) -> None:
        self.died: list[int] = []
        self.paused: list[int] = []
        self.unwound: list[int] = []


class Canary:
    """Dies with the garbage that it is in."""

    def __init__(self, log: Log, token: object) -> None:
        self.log = log
        # A weak reference is cleared, and a finalizer runs, before the collector knows for sure
        # that an object goes. What it held is released only if it has gone.
        self.token = token

    def __del__(self) -> None:
        self.log.died.append(threading.get_ident())


def suspender(leaves_by: str, log: Log) -> Suspend:
    main = getcurrent()
    if leaves_by == "switch":
        return main.switch

    def pause(value: Any = 0, /) -> Any:
        log.paused.append(threading.get_ident())
        try:
            return main.switch(value)
        finally:
            log.unwound.append(threading.get_ident())

    return pause


def collect() -> None:
    for _ in range(2):
        gc.collect()


def each_case() -> Iterator[Any]:
    for case in CASES:
        for leaves_by in case.leaves_by:
            yield pytest.param(case, leaves_by, id=f"{case.name}, by {leaves_by}")


class Garbage:
    """One case's garbage, of which nothing but weak references is kept."""

    def __init__(self, case: Case, leaves_by: str) -> None:
        self.log = Log()
        self.token = object()
        self._references = sys.getrefcount(self.token)
        canary = Canary(self.log, self.token)
        self.canary = weakref.ref(canary)
        self._kept: Sequence[greenlet] = case.make(canary, suspender(leaves_by, self.log))
        del canary
        self.greenlets = [weakref.ref(g) for g in self._kept]
        assert all(g for g in self._kept), "they wait"

    def drop(self) -> None:
        self._kept = ()

    def released(self) -> bool:
        return sys.getrefcount(self.token) == self._references

    def finish(self) -> None:
        """Let every greenlet run to its end."""
        for reference in self.greenlets:
            for _ in range(10):
                g = reference()
                if g is None or g.dead:
                    break
                g.switch(0)
            else:
                pytest.fail("a greenlet does not end")


@pytest.mark.parametrize(("case", "leaves_by"), list(each_case()))
def test_garbage_is_collected_where_the_table_says_so(case: Case, leaves_by: str) -> None:
    garbage = Garbage(case, leaves_by)
    log = garbage.log
    with Unraisable() as unraisable:
        garbage.drop()
        collect()
        if case.hidden_on(THIS_VERSION, leaves_by):
            # It leaks, but it is sound: it can be found, goes on, and then all is released.
            assert garbage.canary() is not None, "it is collected: say so in the table"
            assert log.unwound == []
            garbage.finish()
            collect()
        else:
            assert [reference() for reference in garbage.greenlets] == [None] * len(
                garbage.greenlets
            )
    assert garbage.canary() is None
    assert garbage.released()
    assert log.died == [threading.get_ident()]
    assert log.unwound == log.paused == [threading.get_ident()] * len(log.paused)
    assert unraisable.messages == []


@pytest.mark.parametrize(("case", "leaves_by"), list(each_case()))
def test_what_is_in_use_survives_collections_and_goes_on(case: Case, leaves_by: str) -> None:
    garbage = Garbage(case, leaves_by)
    with Unraisable() as unraisable:
        gc.collect()
        assert garbage.canary() is not None
        assert not garbage.released()
        assert garbage.log.unwound == garbage.log.died == []
        garbage.finish()
        garbage.drop()
        gc.collect()
    assert garbage.canary() is None
    assert garbage.released()
    assert garbage.log.died == [threading.get_ident()]
    assert garbage.log.unwound == garbage.log.paused
    assert unraisable.messages == []


def test_the_document_shows_the_table_of_the_cases() -> None:
    shown = DOCUMENT.read_text()
    assert table() in shown, "run python tests/python/collection_cases.py and put its output there"


def test_only_what_cpython_hides_is_not_collected() -> None:
    reasons = {
        (version, hidden.reason) for case in CASES for version, hidden in case.hidden.items()
    }
    new = {reason for version, reason in reasons if version in ("3.14", "3.15")}
    assert new == {HIDDEN_ARGUMENTS}
    assert {reason for _, reason in reasons} == new | {HIDDEN_STACK}


# --- how a collected greenlet ends ------------------------------------------------------------


def in_a_cycle(run: Callable[[], Any]) -> weakref.ref[greenlet]:
    g: Any = greenlet(run)
    g.itself = g
    g.switch()
    return weakref.ref(g)


def waiter(log: list[str]) -> Callable[[], None]:
    """Waits to be switched to, and tells when it is unwound."""

    def wait() -> None:
        try:
            to_parent()
        finally:
            log.append("unwound")

    return wait


def is_in_a_cycle(g: Any) -> bool:
    return vars(g).get("itself") is g


def test_a_collected_greenlet_is_unwound_from_the_inside_out() -> None:
    log: list[object] = []

    def values() -> Iterator[Any]:
        try:
            yield to_parent()
        except GreenletExit:
            log.append("generator")
            raise

    def run() -> None:
        try:
            for _ in values():
                pass
        finally:
            log.append("frame")

    with Unraisable() as unraisable:
        in_a_cycle(run)
        collect()
    assert log == ["generator", "frame"]
    assert unraisable.messages == []


def test_generators_within_generators_are_unwound_without_a_report() -> None:
    log: list[int] = []

    def nested(level: int) -> Iterator[Any]:
        try:
            if level:
                yield from nested(level - 1)
            else:
                yield to_parent()
        finally:
            log.append(level)

    with Unraisable() as unraisable:
        in_a_cycle(lambda: next(nested(10)))
        collect()
    assert log == [*range(11)]
    assert unraisable.messages == []


def test_an_exception_that_a_finally_block_raises_reaches_the_one_who_collects() -> None:
    def run() -> None:
        try:
            to_parent()
        finally:
            raise KeyError("in finally")

    with Unraisable() as unraisable:
        alive = in_a_cycle(run)
        collect()
    assert alive() is None
    assert unraisable.types == [KeyError]


def test_a_greenlet_that_resurrects_itself_ends_and_stays_usable() -> None:
    saved: list[greenlet] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            saved.append(getcurrent())

    in_a_cycle(run)
    collect()
    [g] = saved
    assert g.dead
    assert g.itself is g  # type: ignore[attr-defined]
    assert g.switch("to the parent") == "to the parent"


def test_a_greenlet_that_resurrects_itself_and_waits_again_goes_on() -> None:
    saved: list[greenlet] = []

    def run() -> str:
        local = ["local"]
        try:
            to_parent()
        except GreenletExit:
            saved.append(getcurrent())
        return local[0] + str(to_parent())

    in_a_cycle(run)
    collect()
    collect()
    assert not saved[0].dead
    assert saved.pop().switch(" and value") == "local and value"


def test_a_greenlet_that_refuses_to_die_is_left_where_it_was_and_kept(capsys: Any) -> None:
    log: list[str] = []

    def run() -> object:
        local = ["local"]
        while True:
            try:
                value = to_parent()
                if value:
                    return [local, value]
            except GreenletExit:
                log.append("caught")
            log.append("went on")

    in_a_cycle(run)
    collect()
    collect()
    assert log == ["caught"]
    assert capsys.readouterr().err == ""
    # Weak references to it have been cleared.
    [g] = [item for item in gc.get_objects() if isinstance(item, greenlet) and is_in_a_cycle(item)]
    assert g.switch() == ()  # to the next to_parent()
    assert log == ["caught", "went on"]
    assert g.switch(1) == [["local"], 1]
    assert g.dead
    alive = weakref.ref(g)
    del g
    collect()
    assert alive() is None


def test_a_greenlet_of_another_thread_is_ended_by_its_own_thread() -> None:
    ready, collected = threading.Event(), threading.Event()
    log: list[int] = []
    owners: list[int] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(threading.get_ident())

    def owner() -> None:
        owners.append(threading.get_ident())
        for _ in range(10):
            in_a_cycle(run)
        ready.set()
        collected.wait()
        getcurrent()
        # What belongs together is ended at once or, if it looks alive to a collection meanwhile,
        # by the next one.
        collect()
        getcurrent()

    # Nobody else collects meanwhile.
    gc.disable()
    try:
        thread = threading.Thread(target=owner)
        thread.start()
        ready.wait()
        collect()
        assert log == []
        collected.set()
        thread.join()
    finally:
        gc.enable()
    assert log == owners * 10


def test_collections_in_finalizers_and_weak_reference_callbacks() -> None:
    log: list[str] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            gc.collect()
            log.append("unwound")

    class Finalized:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            in_a_cycle(run)
            gc.collect()
            log.append("finalized")

    def callback(_: object) -> None:
        in_a_cycle(run)
        gc.collect()
        log.append("called back")

    watched = Finalized()
    reference = weakref.ref(watched, callback)
    del watched
    in_a_cycle(run)
    for _ in range(5):
        gc.collect()
    assert reference() is None
    assert sorted(log) == ["called back", "finalized", "unwound", "unwound", "unwound"]


def test_a_del_that_its_class_was_given_later_runs_and_its_finally_blocks_too() -> None:
    log: list[str] = []

    class Given(greenlet):
        pass

    g: Any = Given(waiter(log))
    g.itself = g
    g.switch()
    Given.__del__ = lambda self: log.append("del")  # type: ignore[attr-defined]
    reference = weakref.ref(g)
    del g
    collect()
    assert log == ["del", "unwound"]
    assert reference() is None


def test_a_del_that_came_later_runs_once() -> None:
    saved: list[greenlet] = []
    calls: list[str] = []

    class Given(greenlet):
        pass

    def give(self: greenlet) -> None:
        calls.append("del")
        saved.append(self)

    g = Given(lambda: to_parent())
    g.switch()
    Given.__del__ = give  # type: ignore[attr-defined]
    del g  # a collection comes only now
    collect()
    assert len(saved) == 1
    saved.clear()
    collect()
    assert calls == ["del"]
    assert saved == []


def test_a_del_that_its_class_gets_from_another_finalizer_may_save_it() -> None:
    saved: list[Any] = []

    class Giving:
        def __init__(self, cls: Any) -> None:
            self.cls = cls
            self.itself = self

        def __del__(self) -> None:
            self.cls.__del__ = lambda g: saved.append(g)

    def leave() -> None:
        class Given(greenlet):
            pass

        # All that the frames use is garbage with the greenlet, code included.
        namespace: dict[str, Any] = {"to_parent": to_parent, "giving": Giving(Given)}
        exec("def helper():\n to_parent()\n return len(str(7))\n", namespace)
        exec("def run():\n return helper()\n", namespace)
        g = namespace["g"] = Given(namespace["run"])
        namespace["giving"].g = g
        g.switch()

    for _ in range(40):
        leave()
    gc.collect()
    assert saved  # those whose class was given it before they were finalized
    for g in saved:
        frame = g.gr_frame.f_back
        del frame.f_globals["helper"], frame.f_globals["run"], frame
        # Where what is freed was.
        made = [compile(f"x = {i}", "", "exec") for i in range(200)]
        functions = [eval("lambda: 1", {}) for _ in range(200)]
        assert g.switch() == 1
        del g, made, functions
    saved.clear()
    collect()
    assert not any(type(each).__name__ == "Given" for each in gc.get_objects())


@pytest.mark.parametrize("refers_back", [True, False])
def test_a_greenlet_that_a_finalizer_starts_in_the_garbage_is_unwound(refers_back: bool) -> None:
    log: list[str] = []

    class Started(greenlet):
        pass

    class Starting:
        def __init__(self, kept: greenlet) -> None:
            self.kept = kept
            self.itself = self
            if refers_back:
                kept.starting = self  # type: ignore[attr-defined]

        def __del__(self) -> None:
            self.kept.switch()
            log.append("started")

    Starting(Started(waiter(log)))  # the older is finalized first
    for _ in range(3):
        gc.collect()
    assert log == ["started", "unwound"]
    assert not any(type(each) is Started for each in gc.get_objects())


def test_a_greenlet_that_its_del_puts_into_a_slot_is_unwound_with_its_slots() -> None:
    log: list[str] = []

    class Slotted(greenlet):
        __slots__ = ("owner", "payload")
        owner: list[greenlet]
        payload: str

        def __del__(self) -> None:
            self.owner.append(self)

    def run() -> None:
        try:
            to_parent()
        finally:
            me = getcurrent()
            assert isinstance(me, Slotted)
            log.append(me.payload)

    g = Slotted(run)
    g.owner = [g]
    g.payload = "unwound"
    g.switch()
    del g
    for _ in range(3):
        gc.collect()
    assert log == ["unwound"]
    assert not any(type(each) is Slotted for each in gc.get_objects())


@pytest.mark.parametrize("by", ["its handler", "its __del__"])
def test_a_new_cycle_does_not_save_a_greenlet_from_its_finally_blocks(by: str) -> None:
    log: list[str] = []

    class Deleted(greenlet):
        def __del__(self) -> None:
            if by == "its __del__":
                self.again = self

    def run() -> None:
        held: object = log
        try:
            to_parent()
        except GreenletExit:
            if by == "its handler":
                held = getcurrent()
                to_parent()
        finally:
            log.append(f"unwound, held {type(held).__name__}")

    several: list[Any] = [Deleted(run) for _ in range(3)]
    for g in several:
        g.all = several
        g.switch()
    del several, g
    for _ in range(4):
        gc.collect()
    expected = "Deleted" if by == "its handler" else "list"
    assert log == [f"unwound, held {expected}"] * 3
    assert not any(type(each) is Deleted for each in gc.get_objects())


def test_collections_in_the_middle_of_many_switches() -> None:
    log = Log()
    pause = suspender("python", log)

    def run() -> Any:
        local: Any = getcurrent()
        while True:
            local = [getcurrent(), local, pause()]

    for _ in range(5):
        family = [greenlet(run) for _ in range(20)]
        for step in range(10):
            for g in family:
                if step:
                    g.switch(step)
                else:
                    g.switch()
            gc.collect(0)
    del family, g
    collect()
    # Each was left ten times and came back nine times, then died.
    assert len(log.paused) == len(log.unwound) == 5 * 20 * 10


def test_what_refuses_in_its_thread_amid_a_collection_keeps_what_it_uses() -> None:
    log: list[object] = []
    made, asked, ended = (threading.Semaphore(0) for _ in range(3))
    over = threading.Event()
    source = """
def helper():
    try:
        to_parent()
    except BaseException as exception:
        log.append(type(exception).__name__)
    to_parent()  # nobody wants it

def run():
    try:
        helper()
    finally:
        log.append(len(str(7)))
"""

    class LetsThemEnd:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            asked.release()
            assert ended.acquire(timeout=60)

    def own() -> None:
        for _ in range(5):
            # All that the frames use is garbage with the greenlet.
            namespace: dict[str, Any] = {"to_parent": to_parent, "log": log}
            exec(source, namespace)
            namespace["itself"] = greenlet(namespace["run"])
            namespace["itself"].switch()
        del namespace
        made.release()
        while asked.acquire(timeout=60) and not over.is_set():
            greenlet(lambda: None).switch()  # ends those that the collection has handed over
            ended.release()

    gc.collect()
    LetsThemEnd()  # some are finalized before the greenlets, some after
    thread = threading.Thread(target=own)
    thread.start()
    assert made.acquire(timeout=60)
    for _ in range(2):
        LetsThemEnd()
    gc.collect()
    over.set()
    asked.release()
    thread.join()
    assert log.count(1) == 5
    assert set(log) == {1, "GreenletExit"}


def test_frozen_garbage_is_collected_once_it_is_thawed() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append(me)

        for _ in range(10):
            greenlet(run).switch()
        gc.freeze()
        gc.collect()
        assert log == [], log
        gc.unfreeze()
        gc.collect()
        assert len(log) == 10, log
        """
    )


def test_nothing_is_collected_while_the_collector_is_disabled() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append(True)

        gc.disable()
        for _ in range(20_000):
            greenlet(run).switch()
        assert log == [], log
        gc.enable()
        kept = [[] for _ in range(20_000)]  # what makes the collector start by itself
        gc.collect()
        assert len(log) == 20_000, len(log)
        """
    )


def test_the_collector_starts_by_itself_and_collects_greenlets() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            held = [[] for _ in range(50)]
            try:
                main.switch()
            finally:
                log.append(True)

        for _ in range(20_000):
            greenlet(run).switch()
        assert log
        """
    )


# --- what the collector's module shows --------------------------------------------------------


def test_referents_and_referrers_show_what_frames_hold() -> None:
    local, handled, argument, stacked = ([name] for name in "abcd")
    main = getcurrent()

    def run(argument: object) -> Any:
        mine = things.pop()
        return [things.pop(), main.switch(), mine]

    def work(argument: object) -> Any:
        try:
            raise ValueError(things.pop())
        except ValueError:
            return run(argument)

    things: list[object] = [stacked, local, handled]
    g = greenlet(work)
    g.switch(argument)
    referents = gc.get_referents(g)
    for expected in (local, argument, stacked):
        assert any(item is expected for item in referents)
        assert any(item is g for item in gc.get_referrers(expected))
    [exception] = [item for item in referents if isinstance(item, ValueError)]
    assert exception.args[0] is handled
    del exception, referents
    assert g.switch() == [stacked, None, local] or g.dead


def test_each_reference_is_shown_once() -> None:
    held = object()
    main = getcurrent()

    def run(things: list[object]) -> Any:
        one, two = things[0], things[0]
        return [things.pop(), main.switch(), one, two]

    g = greenlet(run)
    g.switch([held])
    assert sum(item is held for item in gc.get_referents(g)) == 3
    g.switch()


def test_a_collector_callback_may_resume_a_greenlet_that_waits() -> None:
    def run() -> Any:
        while True:
            to_parent()

    waiting = greenlet(run)
    waiting.switch()
    log: list[str] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        waiting.switch()
        in_a_cycle(lambda: to_parent())
        log.append(phase)

    gc.callbacks.append(callback)
    try:
        gc.collect()
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert len(log) >= 4
    assert log == ["start", "stop"] * (len(log) // 2)
    collect()
    assert not waiting.dead


def test_a_collector_callback_may_leave_its_collection_for_another_greenlet() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        log = []

        def callback(phase, info):
            if phase == "start" and getcurrent() is collector:
                log.append(main.switch("left"))

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append("unwound")

        collector = greenlet(gc.collect)
        gc.callbacks.append(callback)
        greenlet(run).switch()
        assert collector.switch() == "left"
        assert gc.collect() == 0  # one is under way
        assert log == [], log
        collector.switch("resumed")
        gc.callbacks.clear()
        assert collector.dead
        gc.collect()
        assert log == ["resumed", "unwound"], log
        """
    )


def test_a_greenlet_that_refuses_to_die_and_waits_again_is_kept_with_a_word(capsys: Any) -> None:
    log: list[str] = []

    def run() -> None:
        itself = getcurrent()
        try:
            to_parent()
        except GreenletExit:
            log.append("caught")
        to_parent()
        log.append(repr(itself))

    in_a_cycle(run)
    collect()
    assert "GreenletExit did not kill" in capsys.readouterr().err
    collect()
    assert capsys.readouterr().err == ""
    assert log == ["caught"]
    [g] = [item for item in gc.get_objects() if isinstance(item, greenlet) and is_in_a_cycle(item)]
    g.switch()
    assert len(log) == 2


# --- deferred references ----------------------------------------------------------------------

# Free-threaded builds do not count what a frame's stack holds of functions, classes, modules, code
# objects: only a visit keeps them alive. These run on all builds, but that is where they may fail.

DEFERRED = """
import functools, gc, sys, threading, types
from greenlet import getcurrent, greenlet

SOURCE = '''
import types
class Base:
    constant = ("constant", {index}, (1.5, "nested"))
    def method(self, value):
        return self.wait(value) + helper(value)
    @classmethod
    def class_method(cls, value):
        return cls().method(value)
    @staticmethod
    def wait(value):
        local = Base.constant, types, helper
        assert suspend() == "go on"
        assert local[0] == ("constant", {index}, (1.5, "nested")) and local[1].ModuleType
        return value
    @property
    def value(self):
        return self.method({index})
class Kind(Base):
    def __getattr__(self, name):
        return self.value
def helper(value):
    return value
def decorated(function):
    def wrapper(*args):
        return function(*args)
    return wrapper
@decorated
def by_call():
    return Kind.class_method({index})
def by_attribute():
    return Kind().missing
def by_sort():
    return sorted([1], key=lambda _: by_call())[0] * 2 * {index}
def by_generator():
    def values():
        yield by_call()
    for value in values():
        return value
def by_lambda():
    return (lambda method: method({index}))(Kind().method)
'''
NAMES = ["by_call", "by_attribute", "by_sort", "by_generator", "by_lambda"]

compiled = {}

def start(index):
    module = types.ModuleType(f"module{index}")
    module.suspend = getcurrent().switch
    code = compiled.get(index) or compile(SOURCE.format(index=index), "made", "exec")
    compiled[index] = code
    exec(code, module.__dict__)
    run = getattr(module, NAMES[index % len(NAMES)])
    if index % 2:
        # Nothing but the frames knows the functions then.
        vanish = dict(module.__dict__)
        run = types.FunctionType(run.__code__, vanish, run.__name__, None, run.__closure__)
    g = greenlet(run)
    g.switch()
    return g

def forget(g):
    # The frames' globals lose what they use now; what is under way must survive that.
    frame = g.gr_frame
    while frame is not None:
        for name in ("Kind", "by_call", "decorated", *NAMES):
            frame.f_globals.pop(name, None)
        frame = frame.f_back if frame.f_globals.get("suspend") else None
"""


def deferred(body: str, env: dict[str, str]) -> None:
    run_clean(DEFERRED + body, timeout=60, env=env)


tlbc = pytest.mark.parametrize(
    "env",
    [
        pytest.param({}, id="thread-local bytecode"),
        pytest.param(
            {"PYTHON_TLBC": "0"},
            id="no thread-local bytecode",
            marks=pytest.mark.skipif(not FREE_THREADED, reason="a switch of free-threaded builds"),
        ),
    ],
)


@tlbc
def test_what_only_suspended_frames_know_outlives_collections_of_other_threads(
    env: dict[str, str],
) -> None:
    deferred(
        """
stop = threading.Event()

def collector():
    while not stop.wait(0.0005):  # as in collect_until()
        gc.collect()

def work():
    for turn in range(3):
        family = [start(index) for index in range(1, 26)]
        compiled.clear()
        for g in family:
            forget(g)
        del g
        gc.collect()
        results = [g.switch("go on") for g in family]
        assert len(results) == 25 and all(g.dead for g in family)

def guarded():
    try:
        work()
    except BaseException as error:
        failures.append(error)
        raise

failures = []
collectors = [threading.Thread(target=collector) for _ in range(2)]
workers = [threading.Thread(target=guarded) for _ in range(2)]
for thread in collectors + workers:
    thread.start()
for thread in workers:
    thread.join()
stop.set()
for thread in collectors:
    thread.join()
assert not failures
""",
        env,
    )


EXIT = """
import os

def work(daemon):
    kept.append([start(index % 30) for index in range(300)])
    done.release()
    if daemon:
        forever.acquire()

kept = []
done, forever = threading.Semaphore(0), threading.Lock()
forever.acquire()
threads = [
    threading.Thread(target=work, args=(daemon,), daemon=daemon)
    for daemon in (False, True, False, True)
]
for thread in threads:
    thread.start()
for thread in threads:
    done.acquire()
family = [start(index % 30) for index in range(300)]
compiled.clear()  # now only the frames know the code
for g in family[::2]:
    forget(g)
g = None
if int(sys.argv[1]) % 2:
    gc.collect()
"""


@tlbc
@pytest.mark.parametrize("run", range(2))
def test_the_process_ends_with_suspended_greenlets_of_several_threads(
    env: dict[str, str], run: int
) -> None:
    run_clean(DEFERRED + EXIT, args=[str(run)], env=env, timeout=60)


@pytest.mark.stress
def test_a_thousand_processes_end_with_suspended_greenlets() -> None:
    for run in range(1_000):
        run_clean(DEFERRED + EXIT.replace("range(300)", "range(60)"), args=[str(run)], timeout=60)


BROUGHT_BACK = """
import gc, threading, types
from greenlet import GreenletExit, getcurrent, greenlet

SOURCE = '''
def function():
    try:
        suspend()
    except GreenletExit:
        if survivors is not None:
            survivors.append(getcurrent())
            suspend()
    return "unwound"
def body():
    log.append(function())
'''

log = []

# A greenlet that is garbage, and a frame of it the only one that refers to its function.
def leave(survivors=None, make=greenlet):
    scope = dict(suspend=getcurrent().switch, GreenletExit=GreenletExit, getcurrent=getcurrent,
                 survivors=survivors, log=log)
    exec(SOURCE, scope)
    g = make(scope["body"])
    g.itself = g
    g.switch()
    del scope["function"]

# A weak reference is cleared by the collection in any case.
def is_there():
    return any(type(o) is types.FunctionType and o.__name__ == "function"
               for o in gc.get_objects())

def check(resume):
    assert is_there()
    assert is_there()  # once more: an object that nobody counts goes when one who did lets go
    resume()
    assert log == ["unwound"], log
    assert not is_there()
"""


def test_what_the_frames_of_a_greenlet_of_another_thread_use_outlives_its_collection() -> None:
    run_clean(
        BROUGHT_BACK
        + """
def owner():
    leave()
    left.set()
    collected.wait()
    greenlet(lambda: None).switch()  # ends what others have collected

left, collected = threading.Event(), threading.Event()
thread = threading.Thread(target=owner, daemon=True)
gc.disable()
thread.start()
left.wait()
gc.collect()

def resume():
    collected.set()
    thread.join()

check(resume)
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_the_collection_that_it_survives() -> None:
    run_clean(
        BROUGHT_BACK
        + """
survivors = []
leave(survivors)
gc.collect()

def resume():
    g = survivors.pop()
    del g.itself
    g.switch()

check(resume)
"""
    )


@pytest.mark.parametrize("comes", ["with its class", "later"])
def test_what_the_frames_of_a_greenlet_use_outlives_the_collection_in_which_del_saves_it(
    comes: str,
) -> None:
    run_clean(
        BROUGHT_BACK
        + f"""
class Saved(greenlet):
    pass

saved = []
if {comes == "later"}:
    leave(make=Saved)
Saved.__del__ = lambda self: saved.append(self)
if {comes != "later"}:
    leave(make=Saved)
gc.collect()

def resume():
    g = saved.pop()
    del g.itself
    g.switch()

check(resume)
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_its_thread() -> None:
    run_clean(
        BROUGHT_BACK
        + """
def stubborn():
    while True:
        try:
            suspend()
        except GreenletExit:
            pass

def owner():
    global suspend
    suspend = getcurrent().switch
    scope = dict(stubborn=stubborn)
    exec("def function(): stubborn()\\ndef body(): function()", scope)
    g = greenlet(scope["body"])
    g.switch()
    del scope["function"]
    kept.append(g)
    frames.append(g.gr_frame.f_back)

kept, frames = [], []
thread = threading.Thread(target=owner)
thread.start()
thread.join()
gc.collect()
assert frames[0].f_code.co_name == "function"
assert is_there()
assert is_there()
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_the_modules_of_the_program() -> None:
    # The interpreter clears the module while sys still has the greenlet. Memory that has been freed
    # holds no sensible pointers then.
    run_clean(
        """
        import sys
        from greenlet import getcurrent, greenlet

        def function():
            getcurrent().parent.switch()

        def body():
            function()

        sys.suspended = greenlet(body)
        sys.suspended.switch()
        sys.keeps_this_module = sys.modules[__name__]
        """,
        env={"PYTHONMALLOC": "debug"},
    )


CYCLES = """
import gc, resource
from greenlet import getcurrent, greenlet

main = getcurrent()

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def run(held):
    me = getcurrent()
    return [held, me, main.switch()]

def cycles(count):
    for number in range(count):
        greenlet(run).switch([number])
        if number % 1_000 == 0:
            gc.collect()

cycles(COUNT // 2)  # enough for the JIT to have compiled it, if that is on
before = resident()
cycles(COUNT)
after = resident()
assert after < 1.05 * before, (before, after)
"""


def test_resident_memory_is_flat_over_greenlets_that_are_collected() -> None:
    run_clean(CYCLES.replace("COUNT", "20_000"), timeout=60)


@pytest.mark.stress
def test_resident_memory_is_flat_over_a_million_greenlets_that_are_collected() -> None:
    run_clean(CYCLES.replace("COUNT", "1_000_000"), timeout=800)
