"""How a greenlet ends that the collector has found: in its own thread, with its finally blocks.

Another thread may have collected it, and its own thread may use it before its finalizer runs.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import (
    Unraisable,
    collect_twice,
    in_a_cycle,
    run_clean,
    run_script,
    to_parent,
)


def waiter(log: list[str]) -> Callable[[], None]:
    """Returns a body that waits, and logs when it is unwound."""

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
        collect_twice()
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
        collect_twice()
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
        collect_twice()
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
    collect_twice()
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
    collect_twice()
    collect_twice()
    assert not saved[0].dead
    assert saved.pop().switch(" and value") == "local and value"


def test_a_greenlet_that_refuses_to_die_goes_on_and_is_kept_where_it_waits(capsys: Any) -> None:
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
    collect_twice()
    assert capsys.readouterr().err.count("GreenletExit did not kill") == 1
    collect_twice()
    assert capsys.readouterr().err == ""
    assert log == ["caught", "went on"]
    # The collection has cleared weak references to it.
    [g] = [item for item in gc.get_objects() if isinstance(item, greenlet) and is_in_a_cycle(item)]
    assert g.switch() == ()  # to the next to_parent()
    assert log == ["caught", "went on", "went on"]
    assert g.switch(1) == [["local"], 1]
    assert g.dead
    alive = weakref.ref(g)
    del g
    collect_twice()
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
        # All ten end at once. If some looked alive to that collection, the next one ends them.
        collect_twice()
        getcurrent()

    # So that no other collection runs.
    gc.disable()
    try:
        thread = threading.Thread(target=owner)
        thread.start()
        ready.wait()
        collect_twice()
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
    collect_twice()
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
    del g  # no collection has run before
    collect_twice()
    assert len(saved) == 1
    saved.clear()
    collect_twice()
    assert calls == ["del"]
    assert saved == []


def test_a_del_that_another_finalizer_gives_to_the_class_may_save_the_greenlet() -> None:
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

        # What the frames use is garbage together with the greenlet, code objects included.
        namespace: dict[str, Any] = {"to_parent": to_parent, "giving": Giving(Given)}
        exec("def helper():\n to_parent()\n return len(str(7))\n", namespace)
        exec("def run():\n return helper()\n", namespace)
        g = namespace["g"] = Given(namespace["run"])
        namespace["giving"].g = g
        g.switch()

    for _ in range(40):
        leave()
    gc.collect()
    assert saved  # those whose class got __del__ before they were finalized
    for g in saved:
        frame = g.gr_frame.f_back
        del frame.f_globals["helper"], frame.f_globals["run"], frame
        # Takes memory that was freed.
        made = [compile(f"x = {i}", "", "exec") for i in range(200)]
        functions = [eval("lambda: 1", {}) for _ in range(200)]
        assert g.switch() == 1
        del g, made, functions
    saved.clear()
    collect_twice()
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

    Starting(Started(waiter(log)))  # the older object is finalized first
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


def test_a_greenlet_that_refuses_to_die_during_a_collection_keeps_what_it_uses() -> None:
    log: list[object] = []
    made, asked, ended = (threading.Semaphore(0) for _ in range(3))
    over = threading.Event()
    source = """
def helper():
    try:
        to_parent()
    except BaseException as exception:
        log.append(type(exception).__name__)
    to_parent()  # nobody resumes it

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
            # What the frames use is garbage together with the greenlet.
            namespace: dict[str, Any] = {"to_parent": to_parent, "log": log}
            exec(source, namespace)
            namespace["itself"] = greenlet(namespace["run"])
            namespace["itself"].switch()
        del namespace
        made.release()
        while asked.acquire(timeout=60) and not over.is_set():
            greenlet(
                lambda: None
            ).switch()  # ends the greenlets that the collection has handed over
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


def test_a_greenlet_that_refuses_to_die_and_waits_again_is_kept_and_reported(capsys: Any) -> None:
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
    collect_twice()
    assert "GreenletExit did not kill" in capsys.readouterr().err
    collect_twice()
    assert capsys.readouterr().err == ""
    assert log == ["caught"]
    [g] = [item for item in gc.get_objects() if isinstance(item, greenlet) and is_in_a_cycle(item)]
    g.switch()
    assert len(log) == 2


# --- what happens between the collection and the finalizer ----------------------------------------

# When a collection calls the first finalizer, it has already found all of the garbage. On
# free-threaded builds it has then turned off deferred counting, and frees functions and code that
# have no counted reference. So a greenlet that goes on has to hold counted references.
WINDOW = """
import gc, sys, threading
from greenlet import getcurrent, greenlet

place, way = sys.argv[1:]
gc.disable()
made, found, resumed, collected = (threading.Event() for _ in range(4))
published = []
log = []

SOURCE = '''
def work():
    n = 0
    for i in range(50_000):
        n += i % 7
    return n

def wait(to_parent):
    try:
        to_parent()
    finally:
        resumed.set()
        collected.wait(20)
        log.append(work())

def function(to_parent):
    wait(to_parent)

def values(to_parent):
    try:
        yield wait(to_parent)
    finally:
        log.append("closed")

def generator(to_parent):
    held = values(to_parent)
    for _ in held:
        pass

def delegating(to_parent):
    held = values(to_parent)
    yield from held

def delegating_generator(to_parent):
    held = delegating(to_parent)
    for _ in held:
        pass

async def inner(to_parent):
    try:
        wait(to_parent)
    finally:
        log.append("closed")

async def outer(to_parent):
    held = inner(to_parent)
    await held

def coroutine(to_parent):
    held = outer(to_parent)
    try:
        held.send(None)
    except StopIteration:
        pass

async def async_values(to_parent):
    try:
        yield wait(to_parent)
    finally:
        log.append("closed")

async def consume(to_parent):
    held = async_values(to_parent)
    async for _ in held:
        pass

def async_generator(to_parent):
    held = consume(to_parent)
    try:
        held.send(None)
    except StopIteration:
        pass
'''

class Service:
    # Garbage whose finalizer takes its time. One is older and one younger than the greenlet, so
    # that one of them is finalized before the greenlet.
    def __del__(self):
        if found.is_set():
            return
        if way == "it is looked at, and its thread ends":
            gc.get_referents(self.greenlet, self)
        if way == "a finalizer publishes it":
            published.append(self.greenlet)
        found.set()
        resumed.wait(20)

def make():
    namespace = {"resumed": resumed, "collected": collected, "log": log}
    exec(SOURCE, namespace)
    first = Service()
    first.itself = first
    first.greenlet = g = greenlet(namespace[place])
    g.switch(getcurrent().switch)
    last = Service()
    last.itself = last
    last.greenlet = g
    # The only counted references to what its frames run. So the functions are garbage, too.
    names = "wait values delegating inner outer async_values consume".split()
    first.functions = [namespace.pop(name) for name in names]

def own():
    make()
    made.set()
    found.wait(20)
    if way == "a finalizer publishes it":
        published.pop().switch()

thread = threading.Thread(target=own)
thread.start()
made.wait()
gc.collect()
junk = [bytearray(n) for n in range(100, 1000) for _ in range(20)]
functions = [eval(f"lambda: {i}") for i in range(500)]
collected.set()
thread.join()
print(*log)
"""
PLACES = {
    "function": False,
    "generator": True,
    "delegating_generator": True,
    "coroutine": True,
    "async_generator": True,
}


@pytest.mark.parametrize("malloc", ["", "debug"], ids=["", "debug allocator"])
@pytest.mark.parametrize(
    "way", ["its thread ends", "it is looked at, and its thread ends", "a finalizer publishes it"]
)
@pytest.mark.parametrize("place", PLACES)
def test_a_greenlet_that_is_resumed_while_it_is_collected_runs_to_its_end(
    place: str, way: str, malloc: str
) -> None:
    printed = run_clean(WINDOW, args=[place, way], env={"PYTHONMALLOC": malloc}, timeout=60)
    result = sum(i % 7 for i in range(50_000))
    assert printed == " ".join([str(result), *(["closed"] if PLACES[place] else [])])


# --- greenlets that hold each other ---------------------------------------------------------------


@pytest.mark.parametrize("collections", [1, 2])
def test_a_greenlet_whose_finally_block_waits_ends_although_its_holder_is_collected(
    collections: int,
) -> None:
    # The collection ends the holder only. It finds the other greenlet suspended, so it counts it as
    # used, although nothing else refers to it.
    outcome = run_script(
        """
        import gc, sys, threading, time
        from child import run_threads
        from greenlet import getcurrent, greenlet, stacks

        gc.disable()
        ended = []

        def holder(home):
            itself = getcurrent()
            child = greenlet(body)
            child.switch(home)
            home.switch()

        def body(home):
            try:
                home.switch()
            finally:
                try:
                    home.switch()  # gevent does this if a finally block waits
                finally:
                    ended.append(1)

        class Slow:
            def __del__(self):
                time.sleep(0.1)  # the owner ends its greenlets in the middle of the collection

        def own(ready, done):
            home = getcurrent()
            greenlet(holder).switch(home)
            ready.set()
            while not done.wait(0.01):
                getcurrent()  # here it ends what other threads have handed over

        def collect(ready, done):
            ready.wait()
            for _ in range(5):
                slow = Slow()
                slow.itself = slow
            del slow
            for _ in range(int(sys.argv[1])):
                gc.collect()
            done.set()

        for _ in range(2):
            ready, done = threading.Event(), threading.Event()
            run_threads(lambda: own(ready, done), lambda: collect(ready, done))
        gc.collect()
        left = sum(isinstance(each, greenlet) for each in gc.get_objects())
        print(len(ended), stacks.statistics().in_use, left - 1)  # the main greenlet
        """,
        args=[str(collections)],
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == "2 0 0"
    assert all(line.startswith("GreenletExit did not kill") for line in outcome.stderr.splitlines())


def test_greenlets_that_wait_again_are_killed_one_after_the_other() -> None:
    # If the second were killed inside a call of the first, the first would stay suspended there.
    # Then the GreenletExit that it gets when its thread ends could only be reported.
    outcome = run_script(
        """
        import gc, threading
        from greenlet import getcurrent, greenlet

        gc.disable()
        log = []
        made, collected = threading.Event(), threading.Event()

        def run():
            try:
                getcurrent().parent.switch()
            except BaseException:
                log.append("asked")
            try:
                getcurrent().parent.switch()
            finally:
                log.append("ended")

        def own():
            for _ in range(3):
                g = greenlet(run)
                g.itself = g
                g.switch()
            del g
            made.set()
            collected.wait()
            greenlet(lambda: None).switch()
            log.append("went on")

        thread = threading.Thread(target=own)
        thread.start()
        made.wait()
        gc.collect()
        collected.set()
        thread.join()
        print(*log)
        """
    )
    assert outcome.returncode == 0
    assert outcome.stdout.strip() == "asked asked asked went on ended ended ended"
    assert all(line.startswith("GreenletExit did not kill") for line in outcome.stderr.splitlines())
