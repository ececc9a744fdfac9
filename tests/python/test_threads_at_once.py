"""Threads that use greenlets at the same time: their own, and those of each other.

All of it holds on builds with the GIL, too. Without the GIL the threads run at once.
"""

from __future__ import annotations

import contextvars
import copy
import gc
import os
import random
import re
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import GreenletExit, error, getcurrent, gettrace, greenlet, settrace
from helpers import (
    DEBUG_BUILD,
    FREE_THREADED,
    TIME_SCALE,
    VERSION,
    collect,
    collect_until,
    in_background,
    only_free_threaded,
    parallelize,
    run_clean,
    run_script,
    to_parent,
)

THREADS = 4
SWITCHES = int(2_000 / TIME_SCALE)
ROUNDS = int(1_000 / TIME_SCALE)


class Named(greenlet):
    """Has a dict."""

    name: str


@only_free_threaded
def test_importing_the_module_leaves_the_gil_off() -> None:
    printed = run_clean(
        "import sys, greenlet\n"
        "greenlet.greenlet(lambda: None).switch()\n"
        "print(sys._is_gil_enabled())",
        env={"PYTHON_GIL": ""},
    )
    assert printed == "False"


@only_free_threaded
@pytest.mark.parametrize("cls", [greenlet, type("Subclass", (greenlet,), {})])
def test_the_end_of_a_greenlet_drops_its_class_in_the_count_that_was_raised(
    cls: type[greenlet],
) -> None:
    # Each thread counts references to classes for itself. sys.getrefcount() shows only the shared
    # count, to which all threads would have to write.
    cls()  # makes the thread's table long enough for the class
    gc.disable()
    try:
        before = sys.getrefcount(cls)
        for _ in range(100):
            cls(str).switch()
        assert sys.getrefcount(cls) == before
    finally:
        gc.enable()


# --- each thread has greenlets of its own ---------------------------------------------------------


def test_threads_create_run_and_finish_greenlets_at_once() -> None:
    def work(index: int) -> int:
        return sum(greenlet(lambda value: value + index).switch(1) for _ in range(SWITCHES))

    assert parallelize(work, THREADS) == [SWITCHES * (1 + index) for index in range(THREADS)]


def test_threads_switch_back_and_forth_at_once() -> None:
    def work(index: int) -> list[int]:
        def echo(value: int) -> None:
            while True:
                value = to_parent(value + index)

        g = greenlet(echo)
        return [g.switch(value) for value in range(SWITCHES)]

    for index, values in enumerate(parallelize(work, THREADS)):
        assert values == [value + index for value in range(SWITCHES)]


def test_threads_start_greenlets_of_one_function_at_once() -> None:
    shared: dict[int, int] = {}

    def body(key: int) -> int:
        shared[key] = key
        to_parent()
        return shared.pop(key)

    def work(index: int) -> int:
        total = 0
        for turn in range(SWITCHES // 4):
            g = greenlet(body)
            g.switch(index * SWITCHES + turn)
            total += int(g.switch()) - index * SWITCHES
        return total

    expected = sum(range(SWITCHES // 4))
    assert parallelize(work, THREADS) == [expected] * THREADS
    assert shared == {}


def test_threads_kill_and_drop_greenlets_at_once() -> None:
    def work(index: int) -> tuple[int, int]:
        ended = 0

        def body() -> None:
            nonlocal ended
            try:
                to_parent()
            finally:
                ended += 1

        for turn in range(SWITCHES // 2):
            g = greenlet(body)
            g.switch()
            if turn % 2:
                assert isinstance(g.throw(), GreenletExit)
            del g
        return ended, SWITCHES // 2

    for ended, started in parallelize(work, THREADS):
        assert ended == started


def test_threads_collect_while_others_switch() -> None:
    def work(index: int) -> int:
        def body(value: int) -> int:
            local = [value]
            for _ in range(10):
                local = [*to_parent(local)]
            return local[0]

        done = 0
        for turn in range(20):
            family = [greenlet(body) for _ in range(10)]
            values: list[Any] = [g.switch(number) for number, g in enumerate(family)]
            if index % 2 == 0:
                gc.collect()
            for _ in range(10):
                values = [g.switch(value) for g, value in zip(family, values, strict=True)]
            assert values == list(range(10)), turn
            done += 1
        return done

    assert parallelize(work, THREADS) == [20] * THREADS


def test_the_last_reference_may_be_dropped_by_any_thread_while_the_owner_works() -> None:
    ended: list[int] = []
    rounds = SWITCHES // 4
    handed: list[greenlet] = []
    done = threading.Event()
    owners: set[int] = set()

    def body(number: int) -> None:
        try:
            to_parent()
        finally:
            assert threading.get_ident() in owners
            ended.append(number)

    def owner() -> None:
        owners.add(threading.get_ident())
        for number in range(rounds):
            g = greenlet(body)
            g.switch(number)
            handed.append(g)
            del g
            greenlet(lambda: None).switch()
        done.set()
        while handed:
            pass
        collect()
        getcurrent()
        greenlet(lambda: None).switch()

    def dropper() -> None:
        while not (done.is_set() and not handed):
            try:
                handed.pop()
            except IndexError:
                pass

    parallelize(lambda index: owner() if index == 0 else dropper(), 3)
    collect()
    getcurrent()
    assert sorted(ended) == list(range(rounds))


def test_trace_callbacks_of_threads_do_not_mix() -> None:
    def work(index: int) -> int:
        idents: set[int] = set()
        count = 0

        def callback(event: str, pair: tuple[greenlet, greenlet]) -> None:
            nonlocal count
            idents.add(threading.get_ident())
            count += 1

        settrace(callback)
        for _ in range(100):
            greenlet(lambda: None).switch()
        assert gettrace() is callback
        settrace(None)
        assert idents == {threading.get_ident()}
        return count

    assert parallelize(work, THREADS) == [200] * THREADS


def test_parents_of_unstarted_greenlets_may_be_changed_by_several_threads() -> None:
    shared = [greenlet() for _ in range(6)]

    def work(index: int) -> int:
        refused = 0
        generator = random.Random(index)
        for _ in range(SWITCHES):
            child, parent = generator.sample(shared, 2)
            try:
                child.parent = parent
            except ValueError:
                refused += 1
        return refused

    parallelize(work, THREADS)
    for g in shared:
        seen = set()
        step: greenlet | None = g
        while step is not None:
            assert step not in seen, "a cycle of parents"
            seen.add(step)
            step = step.parent


def test_one_function_object_of_many_greenlets_survives_its_deletion_everywhere_else() -> None:
    # Free-threaded builds do not count references from a frame's stack to functions.
    def work(index: int) -> int:
        def make() -> greenlet:
            scope: dict[str, Any] = {"to_parent": to_parent}
            exec("def body(value):\n to_parent()\n return helper(value)", scope)
            exec("def helper(value):\n return value + 1", scope)
            return greenlet(scope["body"])

        total = 0
        for _ in range(10):
            family = [make() for _ in range(20)]
            for number, g in enumerate(family):
                g.switch(number)
            gc.collect()
            total += sum(g.switch() for g in family)
        return total

    assert parallelize(work, THREADS) == [10 * sum(range(1, 21))] * THREADS


def test_the_frame_of_a_greenlet_may_be_asked_for_while_its_thread_resumes_and_ends_it() -> None:
    # A regression: the look walked frames that their thread was just leaving.
    run_clean(
        """
        import time
        from child import run_threads
        from greenlet import getcurrent, greenlet

        end = time.monotonic() + 1.5
        shared = [greenlet()]

        def owner():
            main = getcurrent()

            def deep(level):
                return deep(level - 1) if level else main.switch()

            while time.monotonic() < end:
                g = greenlet(deep)
                g.switch(20)
                shared[0] = g
                g.switch()

        def looker():
            while time.monotonic() < end:
                shared[0].gr_frame

        run_threads(owner, looker, looker)
        """
    )


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


def test_a_switch_while_another_thread_collects_is_sound() -> None:
    def body(value: list[int]) -> Any:
        local = {"value": value}
        for _ in range(200):
            value = to_parent([*local["value"]])
            local = {"value": value}
        return local["value"]

    with in_background(collect_until):
        for _ in range(3):
            family = [greenlet(body) for _ in range(20)]
            values = [g.switch([index]) for index, g in enumerate(family)]
            for _ in range(200):
                values = [g.switch(value) for g, value in zip(family, values, strict=True)]
            assert values == [[index] for index in range(20)]


def test_the_current_frames_of_all_threads_can_be_asked_for_while_greenlets_switch() -> None:
    def switcher(stop: threading.Event) -> None:
        def body() -> None:
            while True:
                to_parent()

        g = greenlet(body)
        while not stop.is_set():
            g.switch()

    with in_background(switcher):
        for _ in range(200):
            for frame in sys._current_frames().values():
                assert frame.f_code.co_name


def test_what_threads_write_at_each_switch_shares_no_cache_line() -> None:
    def address(index: int) -> int:
        match = re.search(r"otid=(0x[0-9a-fA-F]+)", repr(getcurrent()))
        assert match is not None
        return int(match[1], 16)

    addresses = parallelize(address, threads=8)
    assert {each % 128 for each in addresses} == {0}


# --- several threads use one greenlet -------------------------------------------------------------


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
        # A start reads `run` first and then begins. A `run` that is set in between is too late.
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
    # Each round collects all that the tests of the process hold.
    for _ in range(ROUNDS // (20 if FREE_THREADED else 100)):
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
            # Another thread may have set its run or its parent.
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
    """Let two threads do everything of LOOKS with the greenlet of a third thread."""
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
                        pass  # thrown into a greenlet that belongs to this thread now
        finally:
            stop.set()

    parallelize(work, 3)
    print("ended")


def run_here(statement: str) -> str:
    """Run a function of this file in a child process."""
    return run_clean(f"import test_threads_at_once as t; t.{statement}")


@pytest.mark.parametrize("owner", OWNERS)
def test_other_threads_may_do_anything_with_a_greenlet_while_its_owner(owner: str) -> None:
    assert run_here(f"hammer({owner!r}, {ROUNDS // 10})") == "ended"


def change_parents_of_the_dead(rounds: int) -> None:
    """Switch to a dead greenlet while another thread drops its parent."""
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
    # A regression: the parent was freed while the value was passed on to it.
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
    """Drop greenlets in this thread while the thread that started them ends."""
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
    # A regression: the end of the thread killed greenlets that another thread was deallocating.
    assert run_here(f"end_while_others_drop({ROUNDS})") == "ended"


def collect_for_others(rounds: int) -> None:
    """Let any thread collect cycles that hold suspended greenlets of the others."""
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
    # A regression: greenlets that their owner took before the end of the collection never ended.
    assert run_here(f"collect_for_others({ROUNDS * 2})") == "ended"


# --- for minutes ----------------------------------------------------------------------------------


@pytest.mark.stress
def test_threads_do_everything_with_each_others_greenlets_for_minutes() -> None:
    seconds = os.environ.get("GREENLET_STRESS_SECONDS", "600")
    run_clean(
        "import stress_threads; stress_threads.main()",
        args=[seconds],
        timeout=float(seconds) + 300,
    )


def storm(seconds: float, stall: float) -> None:
    # Debug builds before 3.15 assert that frames know the trace functions of the moment.
    without = ["--without", "monitoring"] if DEBUG_BUILD and (3, 12) <= VERSION < (3, 15) else []
    outcome = run_script(
        "import stress_storm; stress_storm.main()",
        args=[str(seconds), "--stall", str(stall * TIME_SCALE), *without],
        env={"PYTHONMALLOC": "debug"},
        timeout=seconds + 2 * stall,
    )
    unexpected = [
        line
        for line in outcome.stderr.splitlines()
        if not line.startswith("GreenletExit did not kill ")
    ]
    assert (outcome.returncode, unexpected) == (0, []), "\n".join([outcome.stdout, *unexpected])


@pytest.mark.stress
def test_a_storm_of_threads_leaves_no_greenlet_behind_for_minutes() -> None:
    storm(float(os.environ.get("GREENLET_STRESS_SECONDS", "600")), stall=120)
