"""What happens to greenlets when the thread that started them ends, whatever made the thread."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import gc
import re
import subprocess
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from greenlet import GreenletExit, _greenlet, error, getcurrent, greenlet, stacks
from helpers import Unraisable, collect, in_thread, run_clean, run_script, to_parent

EXITED = r"^cannot switch to a different thread \(which happens to have exited\)(\n|$)"


def left_by_a_thread(run: Callable[[], object]) -> greenlet:
    """Start a greenlet in a thread that ends while it is suspended."""

    def body() -> greenlet:
        g = greenlet(run)
        g.switch()
        return g

    return in_thread(body)


@contextlib.contextmanager
def manager() -> Iterator[None]:
    to_parent()
    yield


def generator() -> Generator[None]:
    yield to_parent()


async def coroutine() -> None:
    to_parent()


def in_a_handler() -> None:
    try:
        raise KeyError
    except KeyError:
        to_parent()


def deep(level: int) -> None:
    if level:
        deep(level - 1)
    else:
        to_parent()


class Hashed:
    def __hash__(self) -> int:
        to_parent()
        return 1


class Compared:
    def __lt__(self, other: object) -> bool:
        to_parent()
        return True


def with_block() -> None:
    with manager():
        pass


def to_parent_quietly() -> None:
    with contextlib.suppress(GreenletExit):  # ctypes would report it
        to_parent()


def caught() -> None:
    try:
        while True:
            to_parent()
    except GreenletExit:
        pass


callback = ctypes.CFUNCTYPE(None)(to_parent_quietly)

# Ways to call to_parent(), most of them from C.
PLACES: dict[str, Callable[[], Any]] = {
    "a Python function": lambda: to_parent(),
    "a deep recursion": lambda: deep(200),
    "an exception handler": in_a_handler,
    "a generator": lambda: list(generator()),
    "a coroutine": lambda: coroutine().send(None),
    "a with block": with_block,
    "map": lambda: list(map(to_parent, [1])),
    "sorted with a key": lambda: sorted([1, 2], key=lambda _: to_parent()),
    "list.sort": lambda: [Compared(), Compared()].sort(),
    "re.sub": lambda: re.sub("a", lambda match: str(to_parent()), "a"),
    "a hash": lambda: {Hashed(): 1},
    "functools.reduce": lambda: functools.reduce(lambda a, b: to_parent(), [1, 2]),
    "exec": lambda: exec("to_parent()", {"to_parent": to_parent}),
    "a class body": lambda: exec("class C: v = to_parent()", {"to_parent": to_parent}),
    "a loop that GreenletExit ends": caught,
    "a ctypes callback": callback,
}


class Ending:
    """A thread that leaves greenlets behind, and what ran in them when it ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, int]] = []
        self.ident = 0

    def body(self, name: str, place: Callable[[], Any]) -> None:
        try:
            place()
        finally:
            self.ends.append((name, threading.get_ident()))

    def suspended(self, name: str, place: Callable[[], Any]) -> greenlet:
        g = greenlet(self.body)
        g.switch(name, place)
        return g

    def run_here(self, thread_body: Callable[[], Any]) -> Any:
        self.ident = threading.get_ident()
        return thread_body()

    def run(self, thread_body: Callable[[], Any]) -> Any:
        return in_thread(lambda: self.run_here(thread_body))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("holder", ["another thread", "its own thread", "nobody", "a cycle"])
def test_a_suspended_greenlet_is_ended_in_the_thread_that_ends(place: str, holder: str) -> None:
    ending = Ending()
    local = threading.local()

    def body() -> greenlet | None:
        g = ending.suspended(place, PLACES[place])
        if holder == "another thread":
            return g
        if holder == "its own thread":
            local.g = g
        elif holder == "a cycle":
            g.itself = g  # type: ignore[attr-defined]
        return None

    with Unraisable() as reports:
        g = ending.run(body)
        collect()
    assert ending.ends == [(place, ending.ident)]
    assert reports.messages == []
    if g is not None:
        assert g.dead
        with pytest.raises(error, match=EXITED):
            g.switch()


def test_greenlets_in_every_state_and_place_are_left_by_one_thread() -> None:
    ending = Ending()

    def body() -> list[greenlet]:
        family = [ending.suspended(name, place) for name, place in PLACES.items()]
        family += [greenlet(lambda: None) for _ in range(3)]
        finished = greenlet(lambda: None)
        finished.switch()
        return [*family, finished, getcurrent()]

    family = ending.run(body)
    assert ending.ends == [(name, ending.ident) for name in PLACES]
    for g in family:
        assert not g
        assert g.gr_frame is None
        with pytest.raises(error, match=EXITED):
            g.switch()
        with pytest.raises(error, match=EXITED):
            g.throw(KeyError)


def test_an_unstarted_greenlet_of_an_ended_thread_runs_below_a_parent_that_lives() -> None:
    g = in_thread(lambda: greenlet(lambda value: value + 1))
    assert not g.dead
    g.parent = getcurrent()
    assert g.switch(1) == 2


def test_the_started_greenlet_of_an_ended_thread_hands_nothing_to_a_new_parent() -> None:
    def body() -> greenlet:
        g = greenlet(to_parent)
        g.switch()
        return g

    g = in_thread(body)
    assert g.dead
    assert g.parent is not None
    with pytest.raises(error, match=EXITED):
        g.switch()


def test_a_thread_that_ends_runs_the_finally_blocks_of_its_suspended_greenlets() -> None:
    log: list[int] = []

    def body() -> int:
        def run() -> None:
            try:
                to_parent()
            finally:
                log.append(threading.get_ident())

        family = [greenlet(run) for _ in range(10)]
        for g in family:
            g.switch()
        return threading.get_ident()

    ident = in_thread(body)
    collect()
    assert log == [ident] * 10


def test_a_greenlet_held_by_another_thread_may_be_dropped_after_its_own_has_ended() -> None:
    run_clean(
        """
        import gc
        from child import run_threads
        from greenlet import getcurrent, greenlet

        kept = []

        class Local:
            pass

        def body():
            local = Local()
            getcurrent().parent.switch()
            del local

        def thread_body():
            for _ in range(50):
                g = greenlet(body)
                g.switch()
                kept.append(g)

        for _ in range(5):
            run_threads(thread_body)
            gc.collect()
            assert all(g.dead for g in kept)
            kept.clear()
            gc.collect()
        """
    )


def test_the_world_of_an_ended_thread_is_freed() -> None:
    for _ in range(20):
        in_thread(lambda: greenlet(lambda: None).switch())
    collect()
    getcurrent()
    before = _greenlet.get_total_main_greenlets()
    for _ in range(50):
        in_thread(lambda: greenlet(lambda: None).switch())
    collect()
    getcurrent()
    assert _greenlet.get_total_main_greenlets() == before


def test_a_thousand_threads_leave_suspended_greenlets_behind() -> None:
    run_clean(
        """
        from child import run_threads
        from greenlet import getcurrent, greenlet

        finished = []

        def body():
            try:
                getcurrent().parent.switch()
            finally:
                finished.append(1)

        def thread_body():
            for _ in range(10):
                greenlets.append(greenlet(body))
                greenlets[-1].switch()
            del greenlets[:5]

        for _ in range(1_000):
            greenlets = []
            run_threads(thread_body)
        assert len(finished) >= 5_000, len(finished)
        """,
        timeout=60,
    )


def test_a_greenlet_may_catch_its_end_and_is_dead_all_the_same() -> None:
    log: list[str] = []

    def stubborn() -> None:
        while True:
            try:
                to_parent()
            except GreenletExit:
                log.append("caught")

    def body() -> greenlet:
        g = greenlet(stubborn)
        g.switch()
        return g

    g = in_thread(body)
    tries = len(log)
    assert 0 < tries < 100
    assert g.dead
    assert "(thread exited) dead" in repr(g)
    del g
    collect()
    assert log == ["caught"] * tries


def test_a_greenlet_that_reports_its_end_and_dies_of_it_cleans_up() -> None:
    log: list[str] = []

    def reports() -> None:
        try:
            while True:
                try:
                    to_parent()
                except BaseException:
                    log.append(traceback.format_exc().splitlines()[-1])
                    if log:
                        raise
        finally:
            log.append("cleaned up")

    assert left_by_a_thread(reports).dead
    assert log == [
        "greenlet.GreenletExit: Killing the greenlet because all references have vanished.",
        "cleaned up",
    ]


def test_an_event_loop_that_reports_its_end_lets_go_of_its_locks() -> None:
    log: list[str] = []
    locks = [threading.Lock(), threading.Lock()]

    def loop() -> None:
        while True:
            try:
                to_parent()
            except BaseException as caught:
                with locks[0]:
                    log.append(str(caught)[:7])
                locked(caught)

    def locked(caught: BaseException) -> None:
        locks[1].acquire()
        try:
            log.append(str(caught)[:7])
        finally:
            locks[1].release()

    assert left_by_a_thread(loop).dead
    assert set(log) == {"Killing"}
    assert not any(lock.locked() for lock in locks)


def test_a_greenlet_whose_first_greenlet_exit_was_swallowed_is_ended_by_another() -> None:
    log: list[str] = []

    def body() -> tuple[greenlet, greenlet]:
        main = getcurrent()
        other = greenlet(main.switch)
        other.switch()

        def dropped() -> None:
            try:
                to_parent()
            finally:
                other.switch()  # switches away in the middle of its end

        def dropping() -> None:
            try:
                g = greenlet(dropped)
                g.switch()
                # Waits here for the end of the other greenlet. An exception here, in its
                # deallocation, is reported and goes no further.
                del g
                log.append("went on")
                main.switch()
            finally:
                log.append("ended")

        g = greenlet(dropping)
        g.switch()
        return g, other

    with Unraisable() as unraisable:
        greenlets = in_thread(body)
    assert log == ["went on", "ended"]
    assert [g.dead for g in greenlets] == [True, True]
    assert [issubclass(kind, GreenletExit) for kind in unraisable.types] == [True]


def test_greenlets_end_in_their_thread_wherever_the_memory_of_its_dict_is_from() -> None:
    # We keep a thread's state in its dict. On free-threaded builds the memory of this dict may come
    # from another thread. A collection gives it back to that thread, which deallocates it.
    ending = Ending()
    made: list[dict[str, object]] = []
    steps = [threading.Event() for _ in range(4)]

    def body() -> None:
        steps[0].wait()
        mine = list(made)
        steps[1].set()
        steps[2].wait()
        mine.clear()  # into the free list of this thread
        kept.append(ending.suspended("held", to_parent))
        collect()

    def other() -> None:
        made.extend({"key": index} for index in range(500))
        steps[0].set()
        steps[1].wait()
        made.clear()
        steps[2].set()
        steps[3].wait()

    kept: list[greenlet] = []
    maker = threading.Thread(target=other, daemon=True)
    maker.start()
    ending.run(body)
    steps[3].set()
    maker.join()
    assert ending.ends == [("held", ending.ident)]


def test_what_a_finally_block_starts_in_a_thread_that_ends_is_ended_too() -> None:
    ending = Ending()

    def body() -> None:
        def run() -> None:
            try:
                to_parent()
            finally:
                kept.append(ending.suspended("late", to_parent))

        kept.append(greenlet(run))
        kept[0].switch()

    kept: list[greenlet] = []
    ending.run(body)
    assert [g.dead for g in kept] == [True, True]
    assert ending.ends == [("late", ending.ident)]


def test_greenlets_of_an_ending_thread_may_switch_among_themselves() -> None:
    log: list[object] = []

    def body() -> None:
        other = greenlet(lambda: log.append(to_parent("started")))
        other.switch()

        def run() -> None:
            try:
                to_parent()
            finally:
                log.append(greenlet(lambda: "new").switch())
                log.append(getcurrent() is kept[0])
                other.parent = getcurrent()
                other.switch("resumed")

        kept.append(greenlet(run))
        kept[0].switch()
        kept.append(other)

    kept: list[greenlet] = []
    in_thread(body)
    # The other greenlet started first and ends first, by GreenletExit. So nothing is appended.
    assert log == ["new", True]
    assert all(g.dead for g in kept)


@pytest.mark.parametrize("low_level", [False, True])  # True: threading does not know the thread
@pytest.mark.parametrize("owner", ["a greenlet", "an attribute"])
def test_what_a_finalizer_starts_when_the_last_greenlet_of_a_thread_goes_is_ended(
    owner: str, low_level: bool
) -> None:
    ending = Ending()

    class Starting:
        def __del__(self) -> None:
            late.append(ending.suspended("late", to_parent))

    class StartingGreenlet(Starting, greenlet):
        pass

    def body() -> None:
        g = greenlet(run) if owner == "an attribute" else StartingGreenlet(run)
        if owner == "an attribute":
            g.value = Starting()  # type: ignore[attr-defined]
        g.switch()

    def run() -> None:
        me = getcurrent()  # the frame and the greenlet refer to each other
        to_parent(me)

    late: list[greenlet] = []
    if low_level:
        before = _greenlet.get_total_main_greenlets()
        _thread.start_new_thread(ending.run_here, (body,))
        while not late or _greenlet.get_total_main_greenlets() != before:
            time.sleep(0.01)  # within the time limit of the test
    else:
        ending.run(body)
    collect()
    assert ending.ends == [("late", ending.ident)]
    assert [g.dead for g in late] == [True]


def test_a_thread_ends_although_its_greenlets_start_others_for_ever() -> None:
    printed = run_clean(
        """
        import threading
        from greenlet import getcurrent, greenlet

        def starting(back):
            try:
                back.switch()
            finally:
                starter.switch(getcurrent())

        def start_for_ever(back):
            while True:
                started.append(greenlet(starting))
                started[-1].switch(getcurrent())
                try:
                    back = back.switch()
                except BaseException:
                    back = main

        def body():
            global main, starter
            main = getcurrent()
            starter = greenlet(start_for_ever)
            starter.switch(main)

        started = []
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        print(starter.dead)
        """
    )
    assert printed == "True"


def test_greenlets_end_with_their_thread_though_others_look_at_all_objects() -> None:
    # gc.get_objects() would hold the thread's dict, and the dict what ends the thread's greenlets.
    ending = Ending()
    ready, looked = threading.Event(), threading.Event()

    def body() -> None:
        kept.append(ending.suspended("held", to_parent))
        ready.set()
        looked.wait()

    def look() -> None:
        ready.wait()
        objects.extend(gc.get_objects())
        looked.set()

    kept: list[greenlet] = []
    objects: list[object] = []
    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    ending.run(body)
    looker.join()
    objects.clear()
    assert ending.ends == [("held", ending.ident)]
    assert kept[0].dead


def test_an_exception_that_escapes_at_the_end_of_a_thread_is_reported() -> None:
    def body() -> None:
        def run() -> None:
            try:
                to_parent()
            finally:
                raise KeyError("escaped")

        kept.append(greenlet(run))
        kept[0].switch()

    kept: list[greenlet] = []
    with Unraisable() as reports:
        in_thread(body)
    assert reports.types == [KeyError]
    assert kept[0].dead


def test_a_trace_function_of_a_thread_sees_its_greenlets_end() -> None:
    events: list[str] = []

    def body() -> None:
        kept.append(greenlet(to_parent))
        kept[0].switch()
        kept[0].settrace(lambda event, pair: events.append(event))

    kept: list[greenlet] = []
    in_thread(body)
    assert events == ["throw", "switch"]


def test_references_of_greenlets_are_gone_with_their_thread() -> None:
    class Local:
        pass

    gone: list[int] = []

    class Watched(Local):
        def __del__(self) -> None:
            gone.append(threading.get_ident())

    def body() -> tuple[int, list[greenlet]]:
        def run(watched: Watched) -> None:
            local = [watched]
            to_parent()
            del local

        family = [greenlet(run) for _ in range(5)]
        for g in family:
            g.switch(Watched())
        return threading.get_ident(), family

    ident, family = in_thread(body)
    assert gone == [ident] * 5
    assert all(g.dead for g in family)


def test_stacks_and_worlds_are_given_back_when_threads_end() -> None:
    def body() -> list[greenlet]:
        ending = Ending()
        family = [ending.suspended(name, place) for name, place in PLACES.items()]
        family[0].itself = family[0]  # type: ignore[attr-defined]
        return family[1::2]

    collect()
    in_use = stacks.statistics().in_use
    worlds = _greenlet.get_total_main_greenlets()
    held = [in_thread(body) for _ in range(5)]
    assert stacks.statistics().in_use == in_use
    assert _greenlet.get_total_main_greenlets() == worlds
    assert all(g.dead for family in held for g in family)


def test_the_last_reference_to_a_greenlet_may_go_with_the_thread_that_holds_it() -> None:
    """The holder ends first. Its entry in the queue waits for the owner, which still runs."""
    ended: list[int] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            ended.append(threading.get_ident())

    holder: list[greenlet] = []
    g = greenlet(run)
    g.switch()
    holder.append(g)
    del g

    def take() -> None:
        mine = holder.pop()
        assert mine.gr_frame is not None

    in_thread(take)
    getcurrent()
    assert ended == [threading.get_ident()]


def test_greenlets_dropped_elsewhere_while_their_thread_ends_are_ended_once() -> None:
    ended: list[int] = []

    def round_of(count: int) -> None:
        made, go = threading.Event(), threading.Event()
        family: list[greenlet] = []

        def owner() -> None:
            def run() -> None:
                try:
                    to_parent()
                finally:
                    ended.append(1)

            for _ in range(count):
                family.append(greenlet(run))
                family[-1].switch()
            made.set()
            go.wait()

        thread = threading.Thread(target=owner)
        thread.start()
        made.wait()
        go.set()
        family.clear()
        thread.join()

    for _ in range(50):
        round_of(10)
    collect()
    getcurrent()
    # Never twice. Not at all if the thread had ended before the last reference went.
    assert len(ended) == 500
    assert _greenlet.get_pending_cleanup_count() == 0


# --- what Python keeps for a thread ---------------------------------------------------------------


class Seen:
    """What finally blocks see of the thread in which they run."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.values: list[object] = []
        self.threads: list[object] = []
        self.kept: list[greenlet] = []

    def body(self) -> None:
        try:
            to_parent()
        finally:
            self.values.append(getattr(self.local, "value", None))
            self.threads.append(threading.current_thread())

    def work(self, *rest: object) -> None:
        self.local.value = "a value"
        self.kept.append(greenlet(self.body))
        self.kept[-1].switch()


@pytest.mark.parametrize("daemon", [False, True], ids=["", "a daemon"])
def test_thread_locals_and_the_current_thread_are_there_at_the_end_of_a_thread(
    daemon: bool,
) -> None:
    seen = Seen()
    thread = threading.Thread(target=seen.work, daemon=daemon)
    thread.start()
    thread.join()
    assert seen.values == ["a value"]
    assert seen.threads == [thread]
    assert seen.kept[0].dead
    assert not any(isinstance(each, threading._DummyThread) for each in threading.enumerate())


def test_what_a_finally_block_puts_into_thread_locals_goes_with_the_thread() -> None:
    alive: list[weakref.ref[object]] = []
    local = threading.local()
    kept: list[greenlet] = []

    class Value:
        pass

    def body() -> None:
        try:
            to_parent()
        finally:
            local.value = Value()
            alive.append(weakref.ref(local.value))

    def work() -> None:
        local.before = Value()
        kept.append(greenlet(body))
        kept[-1].switch()

    for _ in range(5):
        in_thread(work)
    collect()
    assert [reference() for reference in alive] == [None] * 5


@pytest.mark.parametrize("end", [KeyError, SystemExit, GreenletExit])
def test_thread_locals_are_there_when_an_exception_ends_the_thread(
    end: type[BaseException],
) -> None:
    seen = Seen()
    reports: list[type[BaseException] | None] = []

    def work() -> None:
        seen.work()
        raise end

    usual, threading.excepthook = threading.excepthook, lambda args: reports.append(args.exc_type)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = usual
    assert seen.values == ["a value"]
    assert seen.threads == [thread]
    assert reports == [end]


def test_thread_locals_are_there_where_an_exception_handler_used_greenlets_first() -> None:
    seen = Seen()
    handled: list[str] = []

    def work() -> None:
        try:
            raise KeyError("handled")
        except KeyError as exception:
            seen.work()
            handled.append(repr(exception))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handled == ["KeyError('handled')"]
    assert seen.values == ["a value"]
    assert seen.threads == [thread]


class ThreadWithRun(threading.Thread):
    """Defines run()."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def run(self) -> None:
        self.seen.work()


class ThreadWithDelete(ThreadWithRun):
    """Defines _delete(), the method that we replace."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen)
        self.deletions = 0

    def _delete(self) -> None:
        self.deletions += 1
        super()._delete()  # type: ignore[misc]


class ThreadWithSlots(ThreadWithRun):
    """Has slots, too."""

    __slots__ = ("slot",)


class ThreadWithFixedAttributes(ThreadWithRun):
    """Refuses attributes that it does not know."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_delete":
            raise AttributeError(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name == "_delete":
            raise AttributeError(name)
        super().__delattr__(name)


@pytest.mark.parametrize(
    "kind", [ThreadWithRun, ThreadWithDelete, ThreadWithSlots, ThreadWithFixedAttributes]
)
def test_subclasses_of_thread_end_as_threads_do(kind: type[ThreadWithRun]) -> None:
    seen = Seen()
    thread = kind(seen)
    thread.start()
    thread.join()
    assert seen.values == ["a value"]
    assert seen.threads == [thread]
    assert not thread.is_alive()
    assert thread not in threading.enumerate()
    if isinstance(thread, ThreadWithDelete):
        assert thread.deletions == 1


def test_an_attribute_delete_of_a_thread_object_is_left_alone() -> None:
    seen = Seen()
    thread = threading.Thread(target=seen.work)
    usual: Callable[[], None] = thread._delete  # type: ignore[attr-defined]
    deletions: list[str] = []

    def delete() -> None:
        deletions.append("deleted")
        usual()

    thread._delete = delete  # type: ignore[attr-defined]
    thread.start()
    thread.join()
    assert deletions == ["deleted"]
    assert seen.kept[0].dead
    assert thread not in threading.enumerate()


def test_a_thread_object_has_the_attributes_that_it_had() -> None:
    plain = threading.Thread(target=lambda: None)
    plain.start()
    plain.join()
    seen = Seen()
    thread = threading.Thread(target=seen.work)
    thread.start()
    thread.join()
    assert vars(thread).keys() == vars(plain).keys()


def test_no_cycle_keeps_a_thread_object_alive() -> None:
    seen = Seen()
    gc.disable()
    try:
        thread = threading.Thread(target=seen.work)
        thread.start()
        thread.join()
        alive = weakref.ref(thread)
        seen.threads.clear()
        del thread
        assert alive() is None
    finally:
        gc.enable()


def test_a_thread_that_low_level_code_starts_ends_its_greenlets_too() -> None:
    # There is no threading.Thread. The values of threading.local go before the greenlets.
    ended: list[int] = []
    kept: list[greenlet] = []
    done = threading.Event()

    class Signals:
        def __del__(self) -> None:
            done.set()

    def body(signals: Signals) -> None:
        try:
            to_parent()
        finally:
            ended.append(threading.get_ident())

    def work() -> None:
        idents.append(threading.get_ident())
        kept.append(greenlet(body))
        kept[-1].switch(Signals())

    idents: list[int] = []
    _thread.start_new_thread(work, ())
    assert done.wait(60)
    assert ended == idents
    assert kept[0].dead


def test_a_greenlet_that_a_thread_local_starts_when_it_goes_ends_with_the_thread() -> None:
    ending = Ending()
    local = threading.local()
    kept: list[greenlet] = []

    class Starting:
        def __del__(self) -> None:
            kept.append(ending.suspended("late", to_parent))

    def work() -> None:
        local.value = Starting()
        kept.append(ending.suspended("early", to_parent))

    ending.run(work)
    assert ending.ends == [("early", ending.ident), ("late", ending.ident)]
    assert all(g.dead for g in kept)


def test_the_end_of_a_thread_waits_for_a_finally_block_that_takes_its_time() -> None:
    log: list[str] = []

    def body() -> None:
        try:
            to_parent()
        finally:
            time.sleep(0.05)
            log.append("finally")

    def work() -> None:
        kept.append(greenlet(body))
        kept[-1].switch()

    kept: list[greenlet] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert log == ["finally"]


def test_a_greenlet_that_leaves_collections_by_switches_is_not_abandoned_in_one() -> None:
    # Any number of finalizers may switch. A greenlet that is abandoned there stops all collections.
    printed = run_clean(
        """
        import gc, sys, threading, weakref
        from greenlet import getcurrent, greenlet

        sys.unraisablehook = lambda report: None  # a finalizer reports GreenletExit
        gc.disable()
        ended = kept = 0

        def work():
            global kept
            main = getcurrent()

            class Switches:
                def __del__(self):
                    global ended
                    try:
                        main.switch()
                    finally:
                        ended += 1

            def collecting():
                for _ in range(300):
                    garbage = Switches()
                    garbage.itself = garbage
                del garbage
                gc.collect()

            kept = greenlet(collecting)
            kept.switch()

        class Watched:
            pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        watched = Watched()
        watched.itself = watched
        watched = weakref.ref(watched)
        gc.collect()
        print(watched() is None, kept.dead, ended)
        """
    )
    assert printed == "True True 300"


# --- threads that Python did not make -------------------------------------------------------------

THREADS = """
#include <pthread.h>

typedef void (*callback)(int);
struct work { callback call; int times; };

static void *body(void *argument) {
  struct work *work = argument;
  for (int i = 0; i < work->times; ++i) work->call(i);
  return 0;
}

/* Calls `call` so many times from one new thread that has no Python thread state of its own. */
int call_in_thread(callback call, int times) {
  struct work work = {call, times};
  pthread_t thread;
  if (pthread_create(&thread, 0, body, &work)) return -1;
  return pthread_join(thread, 0);
}
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose call_in_thread(function, times) calls from a thread made in C."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "threads.c").write_text(THREADS)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", "libthreads.so", "threads.c", "-lpthread"],
        cwd=folder,
        check=True,
    )
    return folder / "libthreads.so"


# A suspended ctypes callback keeps the thread state alive, because PyGILState_Ensure() counts. So
# the outer call does not end the thread state.
FOREIGN_PLACES = {name: place for name, place in PLACES.items() if place is not callback}


def call_in_foreign_thread(library: Path, function: Callable[[int], None], times: int) -> None:
    failures: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            function(index)
        except BaseException as failure:
            failures.append(failure)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(guarded)
    assert ctypes.CDLL(str(library)).call_in_thread(callback, times) == 0
    if failures:
        raise failures[0]


def test_every_call_from_a_foreign_thread_has_a_main_greenlet_of_its_own(foreign: Path) -> None:
    mains: list[greenlet] = []

    def call(index: int) -> None:
        assert all(main.dead for main in mains)
        assert greenlet(lambda: getcurrent().parent).switch() is getcurrent()
        mains.append(getcurrent())

    call_in_foreign_thread(foreign, call, 20)
    assert len({id(main) for main in mains}) == 20
    assert all(main.dead for main in mains)


@pytest.mark.parametrize("held", [True, False], ids=["held", "dropped"])
def test_greenlets_of_a_foreign_thread_end_with_each_call(foreign: Path, held: bool) -> None:
    ending = Ending()
    kept: list[greenlet] = []
    idents: list[int] = []
    collect()
    in_use = stacks.statistics().in_use
    worlds = _greenlet.get_total_main_greenlets()

    def call(index: int) -> None:
        assert len(ending.ends) == index * len(FOREIGN_PLACES)
        for name, place in FOREIGN_PLACES.items():
            g = ending.suspended(name, place)
            g.itself = g  # type: ignore[attr-defined]
            if held:
                kept.append(g)
        idents.append(threading.get_ident())

    call_in_foreign_thread(foreign, call, 5)
    assert sorted(ending.ends) == sorted((n, ident) for ident in idents for n in FOREIGN_PLACES)
    assert all(g.dead for g in kept)
    for g in kept:
        with pytest.raises(error, match=EXITED):
            g.switch()
    assert stacks.statistics().in_use == in_use
    assert _greenlet.get_total_main_greenlets() == worlds


def test_foreign_threads_come_and_go_at_once(foreign: Path) -> None:
    counts: list[int] = []

    def call(index: int) -> None:
        g = greenlet(lambda value: to_parent(value) + 1)
        assert g.switch(index) == index
        assert g.switch(index) == index + 1
        counts.append(index)
        greenlet(to_parent).switch()

    threads = [
        threading.Thread(target=call_in_foreign_thread, args=(foreign, call, 50)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == sorted([*range(50)] * 4)


def test_a_greenlet_may_make_a_foreign_thread_that_calls_back(foreign: Path) -> None:
    seen: list[bool] = []

    def run() -> str:
        call_in_foreign_thread(foreign, lambda index: seen.append(getcurrent().parent is None), 3)
        return "done"

    assert greenlet(run).switch() == "done"
    assert seen == [True] * 3


def test_a_foreign_thread_that_never_comes_back_does_not_hold_up_the_exit(foreign: Path) -> None:
    """The thread is inside a call, in a greenlet, when the interpreter ends."""
    printed = run_clean(
        """
        import ctypes, sys, threading, time
        from greenlet import greenlet

        library = ctypes.CDLL(sys.argv[1])
        inside = threading.Event()

        def run():
            inside.set()
            while True:
                time.sleep(0.001)

        callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda index: greenlet(run).switch())
        thread = threading.Thread(target=library.call_in_thread, args=(callback, 1), daemon=True)
        thread.start()
        inside.wait()
        print("exiting")
        """,
        args=[str(foreign)],
    )
    assert printed == "exiting"


# --- daemon threads at the end of the program -----------------------------------------------------

DAEMONS: dict[str, str] = {
    "in its main greenlet": "g.switch(); ready.set(); stay()",
    "in a greenlet": "greenlet(lambda: (ready.set(), stay())).switch()",
    "deep in greenlets": (
        "greenlet(lambda: greenlet(lambda: sorted([1], key=lambda _: (ready.set(), stay())))"
        ".switch()).switch()"
    ),
    "with a deep data stack": (
        "greenlet(lambda: deep(600, lambda: (ready.set(), stay()))).switch()"
    ),
    "in a generator": "greenlet(lambda: list((ready.set(), stay()) for _ in [1])).switch()",
}


@pytest.mark.parametrize("wait", ["time.sleep(600)", "never.wait()", "spin()"])
def test_the_interpreter_exits_around_daemon_threads_in_greenlets(wait: str) -> None:
    bodies = "".join(f"def body_{i}():\n    {code}\n" for i, code in enumerate(DAEMONS.values()))
    program = f"""
import threading, time
from greenlet import getcurrent, greenlet

ready = threading.Event()
never = threading.Event()

def spin():
    while True:
        pass

def stay():
    {wait}

def deep(level, function):
    return function() if not level else deep(level - 1, function)

def leave(parent):
    try:
        parent.switch()
    finally:
        parent = None

def prepared(body):
    global g
    g = greenlet(lambda: None)
    family = [greenlet(leave) for _ in range(5)]
    for member in family:
        member.switch(getcurrent())
    body()

"""
    program += bodies
    for index in range(len(DAEMONS)):
        program += (
            f"ready.clear()\n"
            f"threading.Thread(target=prepared, args=(body_{index},), daemon=True).start()\n"
            f"ready.wait()\n"
        )
    program += "print('exiting')\n"
    assert run_clean(program) == "exiting"


def test_a_thread_that_ends_while_the_interpreter_exits_is_harmless() -> None:
    program = """
import threading
import traceback
from greenlet import getcurrent, greenlet

def run(parent):
    try:
        parent.switch()
    finally:
        pass

def body():
    family = [greenlet(run) for _ in range(20)]
    for g in family:
        g.switch(getcurrent())

def endless():
    while True:
        thread = threading.Thread(target=body, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # can't create new thread at interpreter shutdown
            return
        started.set()
        thread.join()

started = threading.Event()
for _ in range(3):
    threading.Thread(target=endless, daemon=True).start()
started.wait()
"""
    for _ in range(3):
        outcome = run_script(program)
        assert outcome == (0, "", "")


@pytest.mark.stress
def test_threads_without_end_leave_no_memory_behind() -> None:
    printed = run_clean(
        """
        from child import resident, run_threads
        from greenlet import getcurrent, greenlet, stacks

        finished = 0

        def body():
            global finished
            try:
                getcurrent().parent.switch()
            finally:
                finished += 1

        def thread_body():
            held = []
            for index in range(10):
                g = greenlet(body)
                g.switch()
                if index % 2:
                    g.itself = g
                held.append(g)

        warm = None
        for number in range(1, 20_001):
            run_threads(thread_body)
            if number % 500 == 0:
                resident()  # free-threaded builds hardly ever collect in threads as short as these
            if number == 2_000:
                warm = resident()
        print(finished, warm, resident(), stacks.statistics().in_use)
        """,
        timeout=600,
    )
    finished, warm, now, in_use = map(int, printed.split())
    assert finished == 200_000
    assert in_use == 0
    assert now <= warm * 1.05, (warm, now)


def test_the_first_of_two_that_wait_for_the_end_of_a_greenlet_may_go_on_and_end() -> None:
    # A collection in one greenlet waits for the end of another greenlet, and the end of the thread
    # waits for it, too. The collection goes on first, and its greenlet is freed. A regression: the
    # other greenlet then returned to the freed one.
    assert (
        run_clean(
            """
            import gc, threading, weakref
            from greenlet import getcurrent, greenlet

            gc.disable()
            log = []

            def run():
                main = getcurrent()

                def collect():
                    gc.collect()
                    log.append("collected")

                def wait_and_collect_on():
                    main.switch()
                    collector().switch()

                def victim():
                    try:
                        main.switch()
                    finally:
                        try:
                            main.switch()  # leaves the collection
                        finally:
                            held.clear()
                            try:
                                helper.switch()  # ends the collection
                            finally:
                                main.switch()
                                log.append("victim ended")

                def other():
                    try:
                        main.switch()
                    finally:
                        try:
                            main.switch()
                        finally:
                            log.append(collector())
                            for found in gc.get_objects():
                                if isinstance(found, greenlet) and hasattr(found, "cycle"):
                                    found.switch()

                g = greenlet(victim)
                g.cycle = g
                g.switch()
                del g
                others = greenlet(other)
                others.switch()
                kept.append(others)
                helper = greenlet(wait_and_collect_on)
                helper.switch()
                held = [greenlet(collect, helper)]
                collector = weakref.ref(held[0])
                held[0].switch()
                helper.parent = main

            kept = []
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            print(log)
            """,
            env={"PYTHONMALLOC": "debug"},
        )
        == "['collected', None, 'victim ended']"
    )


def test_threads_that_threading_takes_for_one_another_do_not_add_up() -> None:
    # Before 3.13 threading keeps a dummy for a thread that it did not make, and takes the dummy for
    # the next thread with the same ident.
    run_clean(
        """
        import _thread, gc, threading
        from greenlet import getcurrent

        def run():
            with lock:
                threading.current_thread()
                getcurrent()
            done.set()

        def hooks():
            gc.collect()
            return sum(
                getattr(found, "__name__", None) == "_delete"
                and type(found) is type(len)
                for found in gc.get_objects()
            )

        lock = _thread.allocate_lock()
        done = threading.Event()
        for _ in range(50):
            done.clear()
            _thread.start_new_thread(run, ())
            done.wait()
        assert hooks() <= len(threading._active), hooks()
        """
    )


def test_a_scheduler_that_has_left_a_collection_ends_with_its_thread() -> None:
    # A regression: it was abandoned inside the collection, and the collector stayed off for good.
    run_clean(
        """
        import gc, sys, threading
        from greenlet import getcurrent, greenlet

        gc.disable()
        kept = []
        sys.unraisablehook = lambda report: None  # a finalizer reports GreenletExit

        class Leaves:
            def __del__(self):
                getcurrent().parent.switch()

        def run():
            def schedule():
                garbage = Leaves()
                garbage.cycle = garbage
                del garbage
                gc.collect()

            scheduler = greenlet(schedule)
            child = greenlet(lambda: None)
            child.parent = scheduler
            kept.append(scheduler)
            scheduler.switch()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

        class Cycle:
            pass

        cycle = Cycle()
        cycle.cycle = cycle
        del cycle
        assert gc.collect() > 0
        """
    )
