"""How suspended greenlets are killed: what is raised in them, what they may do with it, and which
greenlets stay suspended."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import pickle
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import Unraisable, collect, in_thread, run_clean, to_parent

TEXT = "Killing the greenlet because all references have vanished."

Log = list[object]
# A cause makes a greenlet from a body, lets it wait, and then ends it.
Cause = Callable[[Callable[[], object]], None]


def drop(run: Callable[[], object]) -> None:
    """Drop the last reference."""
    greenlet(run).switch()


def drop_in_another_thread(run: Callable[[], object]) -> None:
    """Drop the last reference in another thread; the greenlet ends here."""
    box = [greenlet(run)]
    box[0].switch()
    in_thread(box.clear)
    getcurrent()


def collect_it(run: Callable[[], object]) -> None:
    """Let a collection find the greenlet."""
    g: Any = greenlet(run)
    g.itself = g
    g.switch()
    del g
    collect()


def collect_in_another_thread(run: Callable[[], object]) -> None:
    """Let a collection in another thread find the greenlet; it ends here."""
    g: Any = greenlet(run)
    g.itself = g
    g.switch()
    del g
    gc.disable()
    try:
        in_thread(collect)
        getcurrent()
    finally:
        gc.enable()
    collect()


def end_its_thread(run: Callable[[], object]) -> None:
    """End the thread in which the greenlet waits."""
    kept: list[greenlet] = []

    def body() -> None:
        kept.append(greenlet(run))
        kept[0].switch()

    in_thread(body)
    assert kept[0].dead


CAUSES: MappingProxyType[str, Cause] = MappingProxyType(
    {
        "dropped": drop,
        "dropped in another thread": drop_in_another_thread,
        "collected": collect_it,
        "collected in another thread": collect_in_another_thread,
        "its thread ends": end_its_thread,
    }
)
FINAL = ("collected", "collected in another thread", "its thread ends")


# --- what greenlets do that catch their end -------------------------------------------------------


def breaks_out(log: Log) -> None:
    while True:
        try:
            to_parent()
        except GreenletExit:
            break
    log.append("after")


def breaks_out_of_a_bare_clause(log: Log) -> None:
    while True:
        try:
            to_parent()
        except BaseException:
            break
    log.append("after")


def returns(log: Log) -> None:
    while True:
        try:
            to_parent()
        except GreenletExit:
            log.append("handler")
            return


def has_a_flag(log: Log) -> None:
    run = True
    while run:
        try:
            to_parent()
        except GreenletExit:
            run = False
    log.append("after")


def runs_a_for_loop_afterwards(log: Log) -> None:
    with contextlib.suppress(GreenletExit):
        to_parent()
    for i in range(3):
        log.append(i)


def runs_a_while_loop_afterwards(log: Log) -> None:
    try:
        to_parent()
    except GreenletExit:
        pass
    i = 0
    while i < 3:
        log.append(i)
        i += 1


def runs_a_while_loop_in_its_finally_block(log: Log) -> None:
    resources = [1, 2, 3]
    try:
        to_parent()
    finally:
        while resources:
            log.append(resources.pop())


def handles_exceptions_in_its_finally_block(log: Log) -> None:
    resources = [1, 2, 3]

    def close(resource: int) -> None:
        try:
            raise ValueError
        except Exception:
            pass
        log.append(resource)

    try:
        to_parent()
    finally:
        while resources:
            close(resources.pop())


def logs_the_exception_and_raises_it(log: Log) -> None:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger = logging.Logger("logger")
    logger.addHandler(Handler())
    try:
        to_parent()
    except BaseException:
        logger.exception("died")
        raise
    finally:
        log.append("finally")
        log.append([line.endswith(TEXT) for line in lines])


def formats_the_exception(log: Log) -> None:
    try:
        to_parent()
    except BaseException as exception:
        log.append(repr(exception))
        log.append(str(exception))
        log.append(traceback.format_exc().splitlines()[-1])
    log.append("after")


def reads_the_text_and_breaks_out(log: Log) -> None:
    while True:
        try:
            to_parent()
        except GreenletExit as exception:
            log.append(str(exception))
            break
    log.append("after")


def reads_the_text_and_looks_at_the_type(log: Log) -> None:
    while True:
        try:
            to_parent()
        except BaseException as exception:
            log.append(str(exception))
            if isinstance(exception, GreenletExit):
                break
    log.append("after")


def suppresses_it(log: Log) -> None:
    while True:
        with contextlib.suppress(GreenletExit):
            to_parent()
        break
    log.append("after")


def runs_a_generator(log: Log) -> None:
    def values() -> Iterator[object]:
        try:
            while True:
                yield to_parent()
        finally:
            log.append("finally")

    for _ in values():
        pass


def takes_it_for_the_end_of_a_queue(log: Log) -> None:
    while True:
        try:
            item = to_parent()
        except GreenletExit:
            item = None
        if item is None:
            break
    log.append("after")


def raises_another_exception(log: Log) -> None:
    while True:
        try:
            to_parent()
        except GreenletExit:
            log.append("handler")
            raise SystemExit from None


def raises_it_in_a_loop(log: Log) -> None:
    i = 0
    while i < 1:
        try:
            to_parent()
        except GreenletExit:
            log.append("handler")
            raise
        finally:
            log.append("finally")
            i += 1


# Bodies that do not wait again, with what each logs.
ENDS: MappingProxyType[Callable[[Log], None], Log] = MappingProxyType(
    {
        breaks_out: ["after"],
        breaks_out_of_a_bare_clause: ["after"],
        returns: ["handler"],
        has_a_flag: ["after"],
        runs_a_for_loop_afterwards: [0, 1, 2],
        runs_a_while_loop_afterwards: [0, 1, 2],
        runs_a_while_loop_in_its_finally_block: [3, 2, 1],
        handles_exceptions_in_its_finally_block: [3, 2, 1],
        logs_the_exception_and_raises_it: ["finally", [True]],
        formats_the_exception: [
            f"GreenletExit({TEXT!r})",
            TEXT,
            f"greenlet.GreenletExit: {TEXT}",
            "after",
        ],
        reads_the_text_and_breaks_out: [TEXT, "after"],
        reads_the_text_and_looks_at_the_type: [TEXT, "after"],
        suppresses_it: ["after"],
        runs_a_generator: ["finally"],
        takes_it_for_the_end_of_a_queue: ["after"],
        raises_another_exception: ["handler"],
        raises_it_in_a_loop: ["handler", "finally"],
    }
)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("body", ENDS, ids=lambda body: body.__name__)
def test_a_greenlet_that_catches_the_exception_ends_as_its_code_says(
    body: Callable[[Log], None], cause: str, capsys: Any
) -> None:
    log: Log = []
    with Unraisable() as reports:
        CAUSES[cause](lambda: body(log))
    assert log == ENDS[body]
    assert reports.types == ([SystemExit] if body is raises_another_exception else [])
    assert capsys.readouterr().err == ""


def tries_three_times(log: Log) -> None:
    def attempt() -> bool:
        try:
            to_parent()
        except BaseException:
            return False
        return True

    tries = 0
    while tries < 3 and not attempt():
        tries += 1
    log.append("after")


def waits_in_a_for_loop(log: Log) -> None:
    for _ in range(2):
        try:
            to_parent()
        except GreenletExit:
            log.append("handler")
            continue


# Bodies that wait again, with what each logs after one GreenletExit, and after as many as it takes.
WAITS_AGAIN: MappingProxyType[Callable[[Log], None], tuple[Log, Log]] = MappingProxyType(
    {
        tries_three_times: ([], ["after"]),
        waits_in_a_for_loop: (["handler"], ["handler", "handler"]),
    }
)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("body", WAITS_AGAIN, ids=lambda body: body.__name__)
def test_a_greenlet_that_waits_again_is_kept_and_reported_until_its_thread_ends(
    body: Callable[[Log], None], cause: str, capsys: Any
) -> None:
    log: Log = []
    once, until_it_ends = WAITS_AGAIN[body]

    def thread() -> None:
        CAUSES[cause](lambda: body(log))
        if cause != "its thread ends":
            assert log == once
            assert capsys.readouterr().err.count("GreenletExit did not kill") == 1
            collect()

    in_thread(thread)
    assert log == until_it_ends
    assert capsys.readouterr().err == ""


# --- what is raised -------------------------------------------------------------------------------


def caught_by(cause: str) -> BaseException:
    """The exception that ends a greenlet."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            to_parent()
        except BaseException as exception:
            caught.append(exception)

    CAUSES[cause](run)
    [exception] = caught
    return exception


@pytest.mark.parametrize("cause", CAUSES)
def test_what_ends_a_greenlet_looks_like_a_greenlet_exit(cause: str) -> None:
    exception = caught_by(cause)
    assert isinstance(exception, GreenletExit)
    assert not isinstance(exception, Exception)
    assert type(exception).__name__ == type(exception).__qualname__ == "GreenletExit"
    assert type(exception).__module__ == "greenlet"
    assert exception.args == (TEXT,)
    assert type(exception.args[0]) is str
    assert str(exception) == TEXT
    assert repr(exception) == f"GreenletExit({TEXT!r})"
    assert vars(exception) == {}


@pytest.mark.parametrize("cause", CAUSES)
def test_event_loops_let_the_exception_pass_when_no_event_will_come(cause: str) -> None:
    # Event loops of gevent, eventlet and asyncio catch what callbacks raise, except SystemExit.
    assert isinstance(caught_by(cause), SystemExit) is (cause in FINAL)


@pytest.mark.parametrize("cause", CAUSES)
def test_the_exception_can_be_copied_and_pickled_as_a_plain_greenlet_exit(cause: str) -> None:
    exception = caught_by(cause)
    exception.note = "a note"  # type: ignore[attr-defined]
    for made in (
        copy.copy(exception),
        copy.deepcopy(exception),
        *(
            pickle.loads(pickle.dumps(exception, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ):
        assert type(made) is GreenletExit
        assert made.args == (TEXT,)
        assert made.note == "a note"  # type: ignore[attr-defined]


@pytest.mark.parametrize("cause", CAUSES)
def test_the_exception_may_be_kept_and_raised_again_later(cause: str) -> None:
    exception = caught_by(cause)

    def run() -> None:
        raise exception

    assert greenlet(run).switch() is exception


def test_a_greenlet_into_which_another_throws_the_exception_ends_quietly() -> None:
    exception = caught_by("collected")
    g = greenlet(to_parent)
    g.switch()
    assert g.throw(exception) is exception
    assert g.dead


# --- nothing is left in the middle ----------------------------------------------------------------


def test_the_collector_works_on_after_a_loop_that_keeps_what_it_catches() -> None:
    # Its traceback and its frame make a cycle, so only a collection releases it. A greenlet that
    # leaves a collection for good would turn the collector off.
    printed = run_clean(
        """
        import gc, sys, threading, weakref
        from greenlet import getcurrent, greenlet

        caught = []

        def call(callback):
            try:
                callback()
            except BaseException:
                info = sys.exc_info()
                caught.append(info[0].__name__)

        def work():
            main = getcurrent()

            def loop():
                while True:
                    call(main.switch)
                    made = [{"n": [n]} for n in range(5000)]

            kept.append(greenlet(loop))
            kept[0].switch()

        class Watched:
            pass

        kept = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        watched = Watched()
        watched.itself = watched
        watched = weakref.ref(watched)
        gc.collect()
        print(set(caught), kept[0].dead, watched() is None)
        """
    )
    assert printed == "{'GreenletExit'} True True"


def test_a_lock_is_free_after_the_exception_was_let_go_of_while_it_was_held() -> None:
    lock = threading.Lock()
    errors: list[str] = []

    def loop() -> None:
        error: BaseException | None = None
        while True:
            try:
                to_parent()
            except BaseException as exception:
                error = exception
            with lock:
                errors.append(type(error).__name__)
                error = None  # releases the exception

    end_its_thread(loop)
    assert set(errors) == {"GreenletExit"}
    assert not lock.locked()


def test_a_finally_block_runs_where_the_exception_is_let_go_of() -> None:
    log: list[str] = []

    def loop() -> None:
        error: BaseException | None = None
        while True:
            try:
                to_parent()
            except BaseException as exception:
                error = exception
            try:
                assert error is not None
                error = None
            finally:
                log.append("finally")

    end_its_thread(loop)
    assert set(log) == {"finally"}


# --- attributes and slots -------------------------------------------------------------------------


@pytest.mark.parametrize("with_del", [True, False], ids=["with __del__", "without __del__"])
@pytest.mark.parametrize("cause", ["here", "in another thread", "in a collection"])
def test_finally_blocks_find_the_slots_and_attributes_of_their_greenlet(
    with_del: bool, cause: str
) -> None:
    log: list[object] = []

    class Slotted(greenlet):
        __slots__ = ("value",)
        value: int

    class WithDel(Slotted):
        __slots__ = ()

        def __del__(self) -> None:
            log.append("del")

    def run() -> None:
        try:
            to_parent()
        finally:
            me: Any = getcurrent()
            log.append((me.value, me.__dict__))

    g: Any = (WithDel if with_del else Slotted)(run)
    g.value = 5
    g.note = 7
    g.switch()
    box = [g]
    del g
    if cause == "here":
        box.clear()
    elif cause == "in another thread":
        in_thread(box.clear)
        getcurrent()
    else:
        box.append(box)
        del box
        collect()
    assert log == [*(["del"] if with_del else []), (5, {"note": 7})]


# --- schedulers -----------------------------------------------------------------------------------


def by_the_constructor(scheduler: greenlet) -> object:
    return greenlet(lambda: None, scheduler)


def by_assignment(scheduler: greenlet) -> object:
    child = greenlet(lambda: None)
    child.parent = scheduler
    return child


def by_assignment_of_a_started_child(scheduler: greenlet) -> object:
    child = greenlet(to_parent)
    child.switch()
    child.parent = scheduler
    return child


def from_another_greenlet(scheduler: greenlet) -> object:
    return greenlet(lambda: greenlet(lambda: None, scheduler)).switch()


def by_a_child_that_was_dropped(scheduler: greenlet) -> object:
    greenlet(lambda: None, scheduler)
    return None


MAKES_A_SCHEDULER = (
    by_the_constructor,
    by_assignment,
    by_assignment_of_a_started_child,
    from_another_greenlet,
    by_a_child_that_was_dropped,
)


class Waiting:
    """The body of a greenlet that waits, and what it has logged."""

    def __init__(self, inside: Callable[[], object] = lambda: None) -> None:
        self.log: list[str] = []
        self.inside = inside

    def __call__(self) -> None:
        self.child = self.inside()
        try:
            to_parent()
        finally:
            self.log.append("finally")


@pytest.mark.parametrize("parenthood", MAKES_A_SCHEDULER, ids=lambda each: each.__name__)
def test_a_thread_that_ends_leaves_its_schedulers_as_they_are(
    parenthood: Callable[[greenlet], object],
) -> None:
    waiting = Waiting()
    kept: list[object] = []

    def work() -> None:
        scheduler = greenlet(waiting)
        scheduler.switch()
        kept.extend((scheduler, parenthood(scheduler)))

    in_thread(work)
    collect()
    assert waiting.log == []
    assert kept[0].dead  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "inside",
    [
        lambda: greenlet(lambda: None),
        lambda: greenlet(lambda: None, getcurrent()),
        lambda: setattr(greenlet(lambda: None), "parent", getcurrent()),
    ],
    ids=["by default", "by the constructor", "by assignment"],
)
def test_a_greenlet_that_makes_children_of_its_own_is_no_scheduler(
    inside: Callable[[], object],
) -> None:
    waiting = Waiting(inside)
    end_its_thread(waiting)
    assert waiting.log == ["finally"]


def test_the_children_of_a_scheduler_end_with_their_thread() -> None:
    log: list[object] = []
    kept: list[greenlet] = []

    def work() -> None:
        def loop() -> None:
            while True:
                try:
                    to_parent()
                except BaseException:
                    log.append("the scheduler")

        def run(name: int) -> None:
            try:
                main.switch()
            finally:
                log.append(name)

        main = getcurrent()
        scheduler = greenlet(loop)
        scheduler.switch()
        kept.append(scheduler)
        for name in range(3):
            kept.append(greenlet(run, scheduler))
            kept[-1].switch(name)

    in_thread(work)
    assert log == [0, 1, 2]
    assert all(g.dead for g in kept)


def test_children_wait_in_their_finally_blocks_by_a_scheduler_that_goes_on() -> None:
    log: list[object] = []
    kept: list[greenlet] = []

    def work() -> None:
        queue: list[greenlet] = []

        def loop() -> None:
            main.switch()
            while True:
                queue.pop(0).switch()

        def run(name: int) -> None:
            try:
                scheduler.switch() if queue else main.switch()
            finally:
                for _ in range(3):
                    queue.append(getcurrent())
                    scheduler.switch()  # like gevent.sleep(0)
                log.append(name)

        main = getcurrent()
        scheduler = greenlet(loop)
        scheduler.switch()
        kept.append(scheduler)
        for name in range(3):
            kept.append(greenlet(run, scheduler))
            kept[-1].switch(name)
        assert all(g.parent is scheduler for g in kept[1:])

    in_thread(work)
    assert log == [0, 1, 2]
    assert all(g.dead for g in kept)


def test_a_collection_ends_a_scheduler_as_any_other() -> None:
    waiting = Waiting()
    g: Any = greenlet(waiting)
    g.switch()
    g.child = greenlet(lambda: None, g)
    alive = weakref.ref(g)
    del g
    collect()
    assert waiting.log == ["finally"]
    assert alive() is None


def test_a_scheduler_whose_last_reference_goes_ends_as_any_other() -> None:
    waiting = Waiting()
    g = greenlet(waiting)
    g.switch()
    by_a_child_that_was_dropped(g)
    del g
    assert waiting.log == ["finally"]


def test_a_scheduler_that_its_thread_has_left_is_kept_by_one_reference() -> None:
    kept: list[greenlet] = []
    counts: list[int] = []

    def work() -> None:
        def loop() -> None:
            while True:
                with contextlib.suppress(BaseException):
                    to_parent()

        scheduler: Any = greenlet(loop)
        kept.append(scheduler)
        scheduler.switch()
        by_a_child_that_was_dropped(scheduler)
        del scheduler
        counts.append(sys.getrefcount(kept[0]))

    in_thread(work)
    collect()
    assert kept[0].dead
    counts.append(sys.getrefcount(kept[0]))
    assert counts[1] - counts[0] == 1


# --- loops that nobody ends -----------------------------------------------------------------------


def loop_for_ever() -> None:
    while True:
        try:
            to_parent()
        except BaseException:
            pass
        threading.Event().wait()  # waits for ever, as a hub waits for events


def loop_in_a_callback_from_c() -> None:
    import ctypes

    while True:
        ctypes.CFUNCTYPE(None)(to_parent)()  # reports exceptions, and returns
        threading.Event().wait()


def loop_that_lets_system_exit_pass() -> None:
    while True:
        try:
            try:
                to_parent()
            finally:
                print("cleaned up")
        except (KeyboardInterrupt, SystemExit):
            raise
        except:  # noqa: E722
            traceback.print_exc()  # would print to stderr, which must be empty
        threading.Event().wait()


ENDLESS = """
import gc, sys, threading
from greenlet import greenlet
import test_ending

loop, end, parent = sys.argv[1:]

def leave_a_loop():
    g = greenlet(getattr(test_ending, loop))
    g.itself = g
    g.switch()
    if parent == "a scheduler":
        g.child = greenlet(lambda: None, g)

if end == "its thread":
    thread = threading.Thread(target=leave_a_loop)
    thread.start()
    thread.join()
else:
    leave_a_loop()
if end == "a collection":
    gc.collect()
    gc.collect()
print("went on")
"""


def run_endless(loop: Callable[[], None], end: str, parent: str) -> set[str]:
    printed = run_clean(ENDLESS, args=[loop.__name__, end, parent])
    return set(printed.splitlines())


@pytest.mark.parametrize("loop", [loop_for_ever, loop_in_a_callback_from_c])
@pytest.mark.parametrize("end", ["its thread", "the program"])
def test_nobody_waits_for_a_scheduler_that_catches_everything(
    loop: Callable[[], None], end: str
) -> None:
    assert run_endless(loop, end, "a scheduler") == {"went on"}


@pytest.mark.parametrize("end", ["its thread", "a collection", "the program"])
def test_a_loop_that_lets_system_exit_pass_ends_and_cleans_up(end: str) -> None:
    printed = run_endless(loop_that_lets_system_exit_pass, end, "no scheduler")
    assert printed == {"went on", "cleaned up"}


@pytest.mark.parametrize("end", ["its thread", "the program"])
def test_a_scheduler_that_lets_system_exit_pass_is_left_at_the_end_of(end: str) -> None:
    assert run_endless(loop_that_lets_system_exit_pass, end, "a scheduler") == {"went on"}
