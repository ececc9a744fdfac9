"""Memory that waiting greenlets and pools do not need is given back, and nothing else.

The tests measure child processes, because other tests leave memory in this one.
"""

from __future__ import annotations

import threading

import pytest
from greenlet import getcurrent, greenlet, stacks
from helpers import (
    in_background,
    in_thread,
    memory_is_given_back,
    run_clean,
    since,
    stacks_stay_in_place,
    to_parent,
)

pytestmark = memory_is_given_back

COMMON = """
import gc, sys, threading, time
from mmap import PAGESIZE as PAGE
from child import page_faults, resident, run_threads
from greenlet import getcurrent, greenlet, stacks

main = getcurrent()

class Nested:
    # repr() of it nests `depth` calls in C.
    def __init__(self, depth):
        self.depth = depth

    def __repr__(self):
        return "x" if not self.depth else repr(Nested(self.depth - 1))

def other_greenlets(seconds):
    # What a program does while others wait: now and then a greenlet starts and ends.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        g = greenlet(main.switch)
        g.switch()
        g.switch()
        time.sleep(0.01)

def other_greenlets_until(condition, seconds=20):
    # It takes a second or two, and longer on a busy machine.
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        other_greenlets(0.25)

def deep_then_wait(depth, *kept):
    repr(Nested(depth))
    return main.switch(), kept

def suspended(count, depth):
    family = [greenlet(deep_then_wait) for _ in range(count)]
    for index, g in enumerate(family):
        g.switch(depth, index, [index])
    return family
"""


@stacks_stay_in_place
@pytest.mark.parametrize("depth", [15, 30, 120])
def test_greenlets_that_have_waited_keep_only_the_memory_of_their_running_calls(depth: int) -> None:
    run_clean(
        COMMON
        + f"""
suspended(1, {depth})
before = stacks.resident_bytes()
family = suspended(500, {depth})
peak = stacks.resident_bytes() - before
# Microsoft's compiler makes larger frames: the calls that wait may take two pages.
most = (1020 if sys.platform == "win32" else 520) * PAGE
other_greenlets_until(lambda: stacks.resident_bytes() - before <= most)
rest = stacks.resident_bytes() - before
assert peak > 500 * 3 * PAGE, peak
assert rest <= most, (peak, rest)
for index, g in enumerate(family):
    assert g.switch("value") == ("value", (index, [index]))
"""
    )


def test_greenlets_that_wait_for_less_than_a_second_keep_their_pages() -> None:
    run_clean(
        COMMON
        + """
other_greenlets(0.1)
before = stacks.resident_bytes()
begin = time.monotonic()
family = suspended(100, 30)
peak = stacks.resident_bytes() - before
while time.monotonic() < begin + 0.8:
    other_greenlets(0.05)
    now = stacks.resident_bytes() - before
    # A slow machine may have taken longer.
    assert now > peak * 0.9 or time.monotonic() > begin + 1, (peak, now)
"""
    )


@stacks_stay_in_place
def test_memory_is_given_back_if_only_the_main_greenlet_goes_on_now_and_then() -> None:
    # This is an event loop whose greenlets all wait, except for a timer.
    run_clean(
        COMMON
        + """
hub = greenlet(lambda: [(time.sleep(0.1), main.switch()) for _ in range(1_000_000)])
hub.switch()
before = stacks.resident_bytes()
family = suspended(100, 30)
peak = stacks.resident_bytes() - before
end = time.monotonic() + 20
while stacks.resident_bytes() - before > peak / 2 and time.monotonic() < end:
    hub.switch()
rest = stacks.resident_bytes() - before
assert rest < peak / 2, (peak, rest)
"""
    )


@stacks_stay_in_place
def test_greenlets_that_go_deep_every_second_come_to_keep_their_pages() -> None:
    # To give them back and touch them again would cost more than it saves.
    run_clean(
        COMMON
        + """
def often_deep():
    while True:
        repr(Nested(30))
        main.switch()

family = [greenlet(often_deep) for _ in range(50)]
faults = []
for turn in range(4):
    if turn:
        other_greenlets(1.6)
    begin = page_faults()
    for g in family:
        g.switch()
    faults.append(page_faults() - begin)
assert min(faults[-2:]) < 100, faults
""",
        timeout=60,
    )


CONTENTS = """
def in_python(depth, value):
    local = [value, depth]
    if depth:
        result = in_python(depth - 1, value)
    else:
        result = main.switch()
    assert local == [value, depth]
    return result

def in_c(depth, value):
    local = [value, depth]
    result = next(map(in_c, [depth - 1], [value])) if depth else main.switch()
    assert local == [value, depth]
    return result

def generators(depth, value):
    local = [value, depth]
    if depth:
        yield from generators(depth - 1, value)
    else:
        yield main.switch()
    assert local == [value, depth]

def in_generators(depth, value):
    result, = generators(depth, value)
    return result

def in_a_sort(depth, value):
    # The list lies on the C stack while it is sorted.
    items = list(range(depth))
    result = []
    def key(item):
        if item == depth // 2:
            result.append(main.switch())
        return -item
    items.sort(key=key)
    assert items == list(range(depth))[::-1]
    return result[0] if result else main.switch()

def handling(depth, value):
    try:
        raise KeyError(value)
    except KeyError as error:
        result = in_python(depth, value)
        assert sys.exception() is error if sys.version_info >= (3, 12) else True
        assert error.args == (value,)
    return result

def after_deep(depth, value):
    sys.setrecursionlimit(100_000)
    # Deeper than the data area of a stack, so the interpreter adds chunks of its own.
    def deep(level):
        return level if level == 0 else deep(level - 1)
    deep(min(depth * 40, 5_000))
    return in_python(3, value)

def beyond_the_data_area(depth, value):
    sys.setrecursionlimit(100_000)
    return in_python(min(depth * 40, 5_000), value)

RUNS = [in_python, in_c, in_generators, in_a_sort, handling, after_deep, beyond_the_data_area]

def check(give_back):
    family = [(g, value) for value, g in enumerate(greenlet(run) for run in RUNS for _ in DEPTHS)]
    for (g, value), depth in zip(family, DEPTHS * len(RUNS)):
        g.switch(depth, value)
    for _ in range(2):
        give_back()
        gc.collect()
        for g, value in family:
            frame = g.gr_frame
            while frame is not None:
                assert frame.f_locals.get("value", value) == value
                frame = frame.f_back
    for g, value in family:
        assert g.switch(("result", value)) == ("result", value)
        assert g.dead

DEPTHS = [0, 1, 5, 40, 150]
"""


def test_trimming_leaves_the_running_calls_of_a_waiting_greenlet_as_they_are() -> None:
    run_clean(COMMON + CONTENTS + "for _ in range(3): check(stacks.trim)")


def test_the_sweep_leaves_the_running_calls_of_a_waiting_greenlet_as_they_are() -> None:
    run_clean(COMMON + CONTENTS + "check(lambda: other_greenlets(2.5))")


def test_trimming_and_collecting_in_threads_leave_the_running_calls_as_they_are() -> None:
    run_clean(
        COMMON
        + CONTENTS
        + """
def work():
    global main
    local.main = getcurrent()
    check(stacks.trim)

class Main:
    def switch(self, *args):
        return local.main.switch(*args)

local = threading.local()
main = Main()
DEPTHS = [0, 5, 40]
run_threads(*[work] * 6)
"""
    )


def test_a_trimmed_greenlet_can_be_ended_in_any_way() -> None:
    run_clean(
        COMMON
        + """
def run(log):
    try:
        deep_then_wait(40)
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        log.append("finally")

def family():
    log = []
    g = greenlet(run)
    g.switch(log)
    stacks.trim()
    return g, log

g, log = family()
try:
    g.throw(KeyError)
except KeyError:
    pass
assert log == ["KeyError", "finally"] and g.dead

g, log = family()
del g
assert log == ["GreenletExit", "finally"]

g, log = family()
g.itself = g
del g
gc.collect()
gc.collect()
assert log == ["GreenletExit", "finally"], log

g, log = family()
heir = greenlet(lambda: g.switch())
heir.switch()
assert log == ["finally"] and g.dead

logs = []
def body():
    g, log = family_in(getcurrent())
    logs.append(log)
    kept.append(g)
def family_in(here):
    log = []
    def run_here():
        try:
            repr(Nested(40))
            here.switch()
        finally:
            log.append("finally")
    g = greenlet(run_here)
    g.switch()
    stacks.trim()
    return g, log
kept = []
run_threads(body)
assert logs == [["finally"]] and kept[0].dead
"""
    )


def test_a_trimmed_greenlet_looks_as_any_other_that_waits() -> None:
    g = greenlet(to_parent)
    g.switch()
    frame, saved = g.gr_frame, g._stack_saved
    assert saved > 0
    stacks.trim()
    assert g
    assert not g.dead
    assert g.gr_frame is frame
    assert g._stack_saved == saved
    assert "suspended" in repr(g) or "active" in repr(g)
    assert in_thread(lambda: bool(g) and not g.dead and g.gr_frame is frame)
    assert g.switch("end") == "end"


@stacks_stay_in_place
def test_trim_gives_back_at_once_and_says_how_much() -> None:
    run_clean(
        COMMON
        + """
suspended(1, 30)
family = suspended(200, 60)
for g in family[:100]:
    g.switch()
before = stacks.resident_bytes()
given_back = stacks.trim()
after = stacks.resident_bytes()
assert given_back > 100 * 5 * PAGE, given_back
assert after == before - given_back, (before, given_back, after)
assert after <= 110 * 2 * PAGE, after
assert stacks.trim() <= 10 * PAGE
for g in family[100:]:
    g.switch()
stacks.trim()
assert stacks.statistics().pooled < 200
"""
    )


def test_trim_works_in_a_thread_without_greenlets_and_in_a_greenlet() -> None:
    assert in_thread(stacks.trim) >= 0
    assert greenlet(stacks.trim).switch() >= 0


def test_trim_leaves_other_threads_alone() -> None:
    run_clean(
        COMMON
        + """
ready, stop = threading.Barrier(2), threading.Event()
def work():
    here = getcurrent()
    def run():
        repr(Nested(60))
        here.switch()
    family = [greenlet(run) for _ in range(100)]
    for g in family:
        g.switch()
    ready.wait()
    stop.wait()
    for g in family:
        g.switch()
thread = threading.Thread(target=work)
thread.start()
ready.wait()
before = stacks.resident_bytes()
stacks.trim()
assert stacks.resident_bytes() > before - 100 * PAGE
stop.set()
thread.join()
"""
    )


@stacks_stay_in_place
@pytest.mark.parametrize("depth", [0, 15, 30, 60, 120])
def test_little_is_left_in_the_pool_when_all_have_ended(depth: int) -> None:
    run_clean(
        COMMON
        + f"""
suspended(1, {depth})
before = resident()
family = suspended(1_000, {depth})
for g in family:
    g.switch()
del family, g
left = resident() - before
# The heap of Windows keeps what the first thousand greenlets have used of it.
assert left <= (6 if sys.platform == "win32" else 3) << 20, left
"""
    )


def test_little_is_left_in_the_pools_of_threads_that_live_on() -> None:
    run_clean(
        COMMON
        + """
THREADS = 8
done, stop = threading.Barrier(THREADS + 1), threading.Event()
def work():
    here = getcurrent()
    def run():
        repr(Nested(30))
        here.switch()
    family = [greenlet(run) for _ in range(1_000)]
    for g in family:
        g.switch()
    for g in family:
        g.switch()
    del family, g
    done.wait()
    stop.wait()
threads = [threading.Thread(target=work) for _ in range(THREADS)]
for thread in threads:
    thread.start()
done.wait()
left = stacks.resident_bytes()
assert left <= 4 << 20, left
stop.set()
for thread in threads:
    thread.join()
"""
    )


def test_a_pool_that_is_not_needed_any_more_shrinks() -> None:
    run_clean(
        COMMON
        + """
for g in suspended(300, 0):
    g.switch()
del g
peak = stacks.resident_bytes()
other_greenlets_until(lambda: stacks.resident_bytes() <= 100 * PAGE)
rest = stacks.resident_bytes()
assert peak >= 300 * PAGE and rest <= 100 * PAGE, (peak, rest)
"""
    )


@since("C recursion is bounded for itself")
def test_recursion_is_bounded_as_before_on_a_trimmed_stack() -> None:
    run_clean(
        COMMON
        + """
def run():
    depths = []
    for _ in range(3):
        depth = 0
        class Endless:
            def __repr__(self):
                nonlocal depth
                depth += 1
                return repr(self)
        sys.setrecursionlimit(1_000_000)
        try:
            repr(Endless())
        except RecursionError:
            depths.append(depth)
        main.switch()
    return depths
g = greenlet(run)
for _ in range(3):
    g.switch()
    stacks.trim()
first, second, third = g.switch()
assert max(first, second, third) - min(first, second, third) < 100, (first, second, third)
"""
    )


def test_statistics_are_cheap_however_many_greenlets_there_are() -> None:
    run_clean(
        COMMON
        + """
family = suspended(5_000, 0)
assert stacks.statistics().in_use == 5_000
begin = time.perf_counter()
for _ in range(100):
    stacks.statistics()
each = (time.perf_counter() - begin) / 100
assert each < 0.0005, each
"""
    )


def test_threads_may_trim_while_others_look_at_their_greenlets() -> None:
    shared: list[greenlet] = []
    failures: list[object] = []

    def look(stop: threading.Event) -> None:
        while not stop.is_set():
            for g in list(shared):
                # It may be running, suspended, marked or trimmed at this moment.
                frame = g.gr_frame
                if g.dead or (frame is not None and not frame.f_code.co_name):
                    failures.append(g)
                repr(g)

    def wait_for_ever() -> None:
        here = getcurrent().parent
        assert here is not None
        while here.switch() != "end":
            pass

    shared.extend(greenlet(wait_for_ever) for _ in range(20))
    for g in shared:
        g.switch()
    with in_background(*[look] * 3):
        for _ in range(200):
            stacks.trim()
            for g in shared[::2]:
                g.switch()
    assert failures == []
    for g in shared:
        g.switch("end")
