"""Threads that run at the same time: their own greenlets, and each other's.

Everything here holds on builds with the GIL as well; without it, the threads truly run at once.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, gettrace, greenlet, settrace
from helpers import (
    DEBUG_BUILD,
    TIME_SCALE,
    VERSION,
    collect,
    only_free_threaded,
    parallelize,
    run_clean,
    run_script,
    to_parent,
)

THREADS = 4
ROUNDS = int(2_000 / TIME_SCALE)


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
def test_an_end_gives_the_reference_to_the_class_back_where_it_was_counted(
    cls: type[greenlet],
) -> None:
    # Each thread counts what its objects refer to for itself; sys.getrefcount() knows the shared
    # count alone, which all threads would have to write to.
    cls()  # makes the thread's table long enough for the class
    gc.disable()
    try:
        before = sys.getrefcount(cls)
        for _ in range(100):
            cls(str).switch()
        assert sys.getrefcount(cls) == before
    finally:
        gc.enable()


def test_threads_create_run_and_finish_greenlets_at_once() -> None:
    def work(index: int) -> int:
        return sum(greenlet(lambda value: value + index).switch(1) for _ in range(ROUNDS))

    assert parallelize(work, THREADS) == [ROUNDS * (1 + index) for index in range(THREADS)]


def test_threads_switch_back_and_forth_at_once() -> None:
    def work(index: int) -> list[int]:
        def echo(value: int) -> None:
            while True:
                value = to_parent(value + index)

        g = greenlet(echo)
        return [g.switch(value) for value in range(ROUNDS)]

    for index, values in enumerate(parallelize(work, THREADS)):
        assert values == [value + index for value in range(ROUNDS)]


def test_threads_start_greenlets_of_one_function_at_once() -> None:
    shared: dict[int, int] = {}

    def body(key: int) -> int:
        shared[key] = key
        to_parent()
        return shared.pop(key)

    def work(index: int) -> int:
        total = 0
        for turn in range(ROUNDS // 4):
            g = greenlet(body)
            g.switch(index * ROUNDS + turn)
            total += int(g.switch()) - index * ROUNDS
        return total

    expected = sum(range(ROUNDS // 4))
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

        for turn in range(ROUNDS // 2):
            g = greenlet(body)
            g.switch()
            if turn % 2:
                assert isinstance(g.throw(), GreenletExit)
            del g
        return ended, ROUNDS // 2

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
    rounds = ROUNDS // 4
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
        for _ in range(ROUNDS):
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
    # Free-threaded builds hold functions on a frame's stack by references that are not counted.
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
    # Once walked frames that their thread was just leaving.
    run_clean(
        """
        import threading, time
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

        threads = [threading.Thread(target=function) for function in (owner, looker, looker)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """
    )


@pytest.mark.stress
def test_threads_do_everything_with_each_others_greenlets_for_minutes() -> None:
    seconds = os.environ.get("GREENLET_STRESS_SECONDS", "600")
    directory = str(Path(__file__).parent)
    run_clean(
        "import sys, stress_threads; stress_threads.main(float(sys.argv[1]))",
        args=[seconds],
        env={"PYTHONPATH": os.pathsep.join((directory, os.environ.get("PYTHONPATH", "")))},
        timeout=float(seconds) + 300,
    )


def storm(seconds: float, stall: float) -> None:
    # Debug builds before 3.15 assert that frames know the trace functions of the moment.
    without = ["--without", "monitoring"] if DEBUG_BUILD and (3, 12) <= VERSION < (3, 15) else []
    outcome = run_script(
        "import stress_storm; stress_storm.main()",
        args=[str(seconds), "--stall", str(stall * TIME_SCALE), *without],
        env={
            "PYTHONMALLOC": "debug",
            "PYTHONPATH": os.pathsep.join(
                (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
            ),
        },
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
