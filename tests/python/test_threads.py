"""Greenlets belong to the thread that started them; what other threads may and may not do."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from greenlet import _greenlet, error, getcurrent, greenlet
from helpers import collect, collect_until, in_thread, parallelize, run_clean, to_parent

DIFFERENT = "^Cannot switch to a different thread\n"
EXITED = r"^cannot switch to a different thread \(which happens to have exited\)$"


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
        assert f"{id(getcurrent()):#x}" in following[0]
        assert f"{id(family['main']):#x}" in following[1]


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


def test_threads_switch_greenlets_of_their_own_at_the_same_time() -> None:
    def work(index: int) -> int:
        def body(total: int) -> int:
            for _ in range(2_000):
                total += to_parent(total)
            return total

        family = [greenlet(body) for _ in range(5)]
        for g in family:
            g.switch(index)
        for _ in range(2_000):
            for g in family:
                result = g.switch(1)
        return int(result)

    assert parallelize(work, 8) == [index + 2_000 for index in range(8)]


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
        import gc, threading
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
            thread = threading.Thread(target=thread_body)
            thread.start()
            thread.join()
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


def test_a_living_thread_counts_among_the_main_greenlets() -> None:
    before = _greenlet.get_total_main_greenlets()
    with another_thread():
        assert _greenlet.get_total_main_greenlets() == before + 1


def test_a_thousand_threads_leave_suspended_greenlets_behind() -> None:
    run_clean(
        """
        import threading
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
            thread = threading.Thread(target=thread_body)
            thread.start()
            thread.join()
        assert len(finished) >= 5_000, len(finished)
        """,
        timeout=60,
    )


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


def test_a_switch_while_another_thread_collects_is_sound() -> None:
    stop = threading.Event()

    thread = threading.Thread(target=collect_until, args=[stop])
    thread.start()
    try:

        def body(value: list[int]) -> Any:
            local = {"value": value}
            for _ in range(200):
                value = to_parent([*local["value"]])
                local = {"value": value}
            return local["value"]

        for _ in range(3):
            family = [greenlet(body) for _ in range(20)]
            values = [g.switch([index]) for index, g in enumerate(family)]
            for _ in range(200):
                values = [g.switch(value) for g, value in zip(family, values, strict=True)]
            assert values == [[index] for index in range(20)]
    finally:
        stop.set()
        thread.join()


def test_the_current_frames_of_all_threads_can_be_asked_for_while_greenlets_switch() -> None:
    stop = threading.Event()

    def switcher() -> None:
        def body() -> None:
            while True:
                to_parent()

        g = greenlet(body)
        while not stop.is_set():
            g.switch()

    thread = threading.Thread(target=switcher)
    thread.start()
    try:
        for _ in range(200):
            for frame in sys._current_frames().values():
                assert frame.f_code.co_name
    finally:
        stop.set()
        thread.join()


def test_a_finalizer_may_use_the_first_greenlets_of_a_thread() -> None:
    # Before 3.12 an allocation collects: that of the thread's main greenlet, too.
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


def test_what_threads_write_at_each_switch_shares_no_cache_line() -> None:
    def address(index: int) -> int:
        match = re.search(r"otid=(0x[0-9a-f]+)", repr(getcurrent()))
        assert match is not None
        return int(match[1], 16)

    addresses = parallelize(address, threads=8)
    assert {each % 128 for each in addresses} == {0}
