"""Nothing leaks: references, objects and memory stay flat over many greenlets."""

from __future__ import annotations

import contextvars
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet, settrace
from helpers import (
    DEBUG_BUILD,
    Unraisable,
    collect,
    in_thread,
    memory_is_given_back,
    run_clean,
    to_parent,
)


def create_run_finish() -> None:
    greenlet(lambda value: value).switch([])


def suspend_and_finish() -> None:
    g = greenlet(lambda: [to_parent(), to_parent()])
    g.switch()
    g.switch([])
    g.switch({})


def suspend_and_drop() -> None:
    g = greenlet(lambda: [to_parent([]), to_parent()])
    g.switch()
    del g


def create_and_drop() -> None:
    greenlet(lambda: None)


def end_by_exception() -> None:
    def failing() -> None:
        raise KeyError([])

    try:
        greenlet(failing).switch()
    except KeyError:
        pass


def throw_into_suspended() -> None:
    g = greenlet(to_parent)
    g.switch()
    try:
        g.throw(KeyError, [])
    except KeyError:
        pass


def throw_into_new() -> None:
    try:
        greenlet(lambda: None).throw(KeyError, [])
    except KeyError:
        pass


def throw_exit() -> None:
    g = greenlet(to_parent)
    g.switch()
    assert isinstance(g.throw(), GreenletExit)


def wrong_arguments() -> None:
    g: Any = greenlet(to_parent)
    g.switch()
    for call in (
        lambda: g.throw(5),
        lambda: g.throw(KeyError(), 5),
        lambda: setattr(g, "parent", 5),
        lambda: setattr(g, "parent", g),
        lambda: setattr(g, "run", 5),
        lambda: setattr(g, "gr_context", 5),
        lambda: delattr(g, "parent"),
        lambda: greenlet().switch(),
    ):
        try:
            call()
        except (TypeError, ValueError, AttributeError):
            pass
    g.switch()


def switch_to_oneself() -> None:
    getcurrent().switch([], {}, a=[])


def switch_to_finished() -> None:
    g = greenlet(lambda: None)
    g.switch()
    g.switch([], a={})


def keywords_both_ways() -> None:
    g = greenlet(lambda *args, **kwargs: to_parent(*args, **kwargs))
    g.switch([], a={})
    g.switch([], {}, b=[])


def in_a_generator() -> None:
    def generator() -> Any:
        yield to_parent()

    g = greenlet(lambda: list(generator()))
    g.switch()
    g.switch([])


def drop_in_a_generator() -> None:
    def generator() -> Any:
        yield to_parent()

    g = greenlet(lambda: list(generator()))
    g.switch()
    del g


def look_at_frames() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        else:
            to_parent()

    g = greenlet(deep)
    g.switch(5)
    frame = g.gr_frame
    while frame is not None:
        dict(frame.f_locals)
        frame = frame.f_back
    g.switch()


def with_a_context() -> None:
    variable: contextvars.ContextVar[list[int]] = contextvars.ContextVar("variable")
    g = greenlet(lambda: (variable.set([]), to_parent(), getcurrent().gr_context))
    g.switch()
    g.gr_context = contextvars.copy_context()
    g.switch()


def in_a_handler() -> None:
    def run() -> None:
        try:
            raise KeyError([])
        except KeyError:
            to_parent()

    g = greenlet(run)
    g.switch()
    g.switch()


def traced() -> None:
    settrace(lambda event, pair: None)
    suspend_and_finish()
    settrace(None)


def attributes_in_a_cycle() -> None:
    g: Any = greenlet(lambda: None)
    g.itself = g
    g.other = greenlet(parent=g)


def deep_in_c() -> None:
    def deep(level: int) -> Any:
        return to_parent() if level == 0 else next(map(deep, [level - 1]))

    g = greenlet(deep)
    g.switch(20)
    g.switch([])


def chain_of_parents() -> None:
    g = getcurrent()
    for _ in range(10):
        g = greenlet(lambda value: value, g)
    g.switch([])


def refuse_and_finish() -> None:
    survivors: list[greenlet] = []

    def run() -> None:
        try:
            to_parent()
        except GreenletExit:
            survivors.append(getcurrent())
            to_parent()

    g = greenlet(run)
    g.switch()
    del g
    survivors.pop().switch()


def unraisable_in_a_dropped_one() -> None:
    def run() -> None:
        try:
            to_parent()
        finally:
            raise KeyError([])

    with Unraisable():
        g = greenlet(run)
        g.switch()
        del g


def subclass_with_slots() -> None:
    class Slotted(greenlet):
        __slots__ = ("value",)

    g: Any = Slotted(to_parent)
    g.value = [g]
    g.switch()
    g.switch()
    g.value = None


def in_another_thread() -> None:
    in_thread(suspend_and_finish)


def dropped_by_another_thread() -> None:
    g = greenlet(to_parent)
    g.switch()
    holder = [g]
    del g
    in_thread(holder.clear)
    getcurrent()


def left_in_an_ended_thread() -> None:
    kept: list[greenlet] = []

    def body() -> None:
        g = greenlet(to_parent)
        g.switch([])
        kept.append(g)

    in_thread(body)


CYCLES: list[Callable[[], None]] = [
    create_run_finish,
    suspend_and_finish,
    suspend_and_drop,
    create_and_drop,
    end_by_exception,
    throw_into_suspended,
    throw_into_new,
    throw_exit,
    wrong_arguments,
    switch_to_oneself,
    switch_to_finished,
    keywords_both_ways,
    in_a_generator,
    drop_in_a_generator,
    look_at_frames,
    with_a_context,
    in_a_handler,
    traced,
    attributes_in_a_cycle,
    deep_in_c,
    chain_of_parents,
    refuse_and_finish,
    unraisable_in_a_dropped_one,
    subclass_with_slots,
    in_another_thread,
    dropped_by_another_thread,
    left_in_an_ended_thread,
]
# What must not grow. sys.gettotalrefcount exists on debug builds only.
MEASURES: dict[str, Callable[[], int]] = {
    "objects the collector tracks": lambda: len(gc.get_objects()),
    "blocks of the small-object allocator": sys.getallocatedblocks,
}


if DEBUG_BUILD:
    MEASURES["references"] = vars(sys)["gettotalrefcount"]


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_objects_blocks_and_references_do_not_grow(cycle: Callable[[], None]) -> None:
    rounds = 100
    leaking = dict.fromkeys(MEASURES, sys.maxsize)
    # The interpreter may fill caches and free lists in one attempt. A leak shows in each attempt.
    for _ in range(5):
        for _ in range(5):
            cycle()
        collect()
        before = {name: MEASURES[name]() for name in leaking}
        for _ in range(rounds):
            cycle()
        collect()
        growth = {name: MEASURES[name]() - before[name] for name in leaking}
        leaking = {name: grown for name, grown in growth.items() if grown >= rounds}
        if not leaking:
            break
    assert leaking == {}


def test_arguments_and_results_are_held_once_and_let_go() -> None:
    for cycle in range(3):
        value = object()
        before = sys.getrefcount(value)
        g = greenlet(lambda item: to_parent(item))
        assert g.switch(value) is value
        assert g.switch(value) is value
        del g
        collect()
        assert sys.getrefcount(value) == before, cycle


def test_tracemalloc_sees_no_growth_and_survives_switches() -> None:
    for cycle in CYCLES:
        cycle()
    collect()
    tracemalloc.start()
    try:
        for _ in range(20):
            suspend_and_finish()
        collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            suspend_and_finish()
            suspend_and_drop()
        collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500 * 16


RESIDENT = """
from child import resident
from greenlet import getcurrent, greenlet

def run(value):
    local = [value]
    getcurrent().parent.switch(local)
    return local

def cycles(count):
    for turn in range(count):
        g = greenlet(run)
        g.switch(turn)
        if turn % 2:
            g.switch()

cycles({rounds})
before = resident()
cycles({rounds} * 5)
grown = resident() - before
print(grown)
assert grown < 0.05 * before + 256 * 1024, (before, grown)
"""


@memory_is_given_back
def test_resident_memory_is_flat_over_many_greenlets() -> None:
    run_clean(RESIDENT.format(rounds=10_000), timeout=60)


@pytest.mark.stress
def test_resident_memory_is_flat_over_a_million_greenlets() -> None:
    run_clean(RESIDENT.format(rounds=200_000), timeout=300)


@memory_is_given_back
def test_resident_memory_is_flat_over_many_threads() -> None:
    run_clean(
        """
        from child import resident, run_threads
        from greenlet import getcurrent, greenlet

        def body():
            family = [greenlet(getcurrent().switch) for _ in range(5)]
            for g in family:
                g.switch()

        def threads(count):
            for _ in range(count):
                run_threads(body)

        threads(300)
        before = resident()
        threads(1_000)
        grown = resident() - before
        assert grown < 0.05 * before + 512 * 1024, (before, grown)
        """,
        timeout=60,
    )


COLLECTED = """
import gc
from child import resident
from greenlet import getcurrent, greenlet

main = getcurrent()

def run(held):
    me = getcurrent()
    return [held, me, main.switch()]

def cycles(count):
    for number in range(count):
        greenlet(run).switch([number])
        if number % 1_000 == 0:
            gc.collect()

cycles(COUNT // 2)  # after that the JIT has compiled it, if it is on
before = resident()
cycles(COUNT)
after = resident()
assert after < 1.05 * before, (before, after)
"""


@memory_is_given_back
def test_resident_memory_is_flat_over_greenlets_that_are_collected() -> None:
    run_clean(COLLECTED.replace("COUNT", "20_000"), timeout=60)


@pytest.mark.stress
def test_resident_memory_is_flat_over_a_million_greenlets_that_are_collected() -> None:
    run_clean(COLLECTED.replace("COUNT", "1_000_000"), timeout=800)
