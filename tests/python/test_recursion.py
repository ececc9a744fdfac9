"""Recursion limits belong to a greenlet: depth does not leak, and too deep is RecursionError."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import ON_WINDOWS, VERSION, in_thread, run_clean, since, to_parent
from recursion_cases import PROGRAMS


def remaining_depth() -> int:
    """How many more Python calls succeed before RecursionError."""

    def deeper(level: int) -> int:
        try:
            return deeper(level + 1)
        except RecursionError:
            return level

    return deeper(0)


def at_depth(level: int, function: Any) -> Any:
    if level:
        return at_depth(level - 1, function)
    return function()


def test_the_depth_of_a_suspended_greenlet_does_not_count_elsewhere() -> None:
    before = remaining_depth()
    g = greenlet(lambda: at_depth(300, to_parent))
    g.switch()
    assert remaining_depth() == before
    g.switch()
    assert remaining_depth() == before


def test_the_c_calls_of_a_suspended_greenlet_do_not_count_elsewhere() -> None:
    class Leaf:
        def __repr__(self) -> str:
            to_parent()
            return "leaf"

    def show(innermost: object) -> str:
        # More than half of what each version allows. 3.11 counts Python and C calls together; 3.12
        # came with 1,500 C calls, and allows more in later releases, but fewer on Windows.
        later = 1_800 if ON_WINDOWS else 6_000
        for _ in range(600 if VERSION < (3, 12) else 900 if VERSION < (3, 13) else later):
            innermost = [innermost]
        return repr(innermost).strip("[]")

    family = [greenlet(show) for _ in range(3)]
    for g in family:
        g.switch(Leaf())
        assert show("elsewhere") == "'elsewhere'"
    for g in family:
        assert g.switch() == "leaf"
        assert show("elsewhere") == "'elsewhere'"


def test_greenlets_that_go_deep_in_turns_find_all_their_frames_again() -> None:
    """CPython puts the frames of deep calls into further chunks of memory, and frees those."""
    run_clean(
        """
        import sys
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def deep(level):
            value = [level]
            below = deep(level - 1) if level else main.switch()
            assert value == [level]
            return below

        def go_deep(number):
            for turn in range(4):
                deep(3_000 * (1 + (number + turn) % 3))
                main.switch()  # not deep

        sys.setrecursionlimit(20_000)
        family = [greenlet(go_deep) for _ in range(5)]
        for number, g in enumerate(family):
            g.switch(number)
            deep_here = greenlet(deep)
            deep_here.switch(2_000)
            deep_here.switch()
        for turn in range(8):
            for g in family[turn % 2 :: 2] + family[1 - turn % 2 :: 2]:
                g.switch()
        assert all(g.dead for g in family)
        """
    )


def test_many_suspended_greenlets_together_may_be_deeper_than_the_limit() -> None:
    before = remaining_depth()
    family = [greenlet(lambda: at_depth(300, to_parent)) for _ in range(50)]
    for g in family:
        g.switch()
    assert remaining_depth() == before
    for g in family:
        g.switch()
    assert remaining_depth() == before


def test_a_greenlet_finds_its_own_depth_again_after_each_switch() -> None:
    def run() -> set[int]:
        seen = set()
        for _ in range(10):
            seen.add(remaining_depth())
            to_parent()
        return seen

    g = greenlet(run)
    for level in range(10):
        at_depth(level * 20, g.switch)
    depths = g.switch()
    assert len(depths) == 1


def test_a_greenlet_has_as_much_depth_as_its_starter_has_or_more() -> None:
    assert greenlet(remaining_depth).switch() >= remaining_depth() - 10


def test_an_exception_thrown_through_deep_frames_gives_the_depth_back() -> None:
    before = remaining_depth()
    for _ in range(20):
        g = greenlet(lambda: at_depth(400, to_parent))
        g.switch()
        with pytest.raises(KeyError):
            g.throw(KeyError)
    assert remaining_depth() == before


def test_dropping_deep_greenlets_gives_the_depth_back() -> None:
    before = remaining_depth()
    for _ in range(20):
        g = greenlet(lambda: at_depth(400, to_parent))
        g.switch()
        del g
    assert remaining_depth() == before


def test_ten_thousand_switches_at_different_depths_leave_the_depth_as_it_was() -> None:
    before = remaining_depth()
    main = getcurrent()

    def worker(level: int) -> None:
        while True:
            at_depth(level, main.switch)

    family = [greenlet(worker) for _ in range(50)]
    for index, g in enumerate(family):
        g.switch(index * 7)
    for turn in range(10_000):
        at_depth(turn * 13 % 200, family[turn * 17 % 50].switch)
    assert remaining_depth() == before
    for g in family:
        g.throw()
    assert remaining_depth() == before


def test_endless_python_recursion_raises_and_the_greenlet_goes_on() -> None:
    def endless() -> None:
        endless()

    def run() -> list[str]:
        log = []
        for _ in range(3):
            try:
                endless()
            except RecursionError as error:
                log.append(type(error).__name__)
            to_parent()
        return log

    g = greenlet(run)
    for _ in range(3):
        g.switch()
    assert g.switch() == ["RecursionError"] * 3


def test_recursion_error_that_nobody_catches_rises_to_the_parent() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError):
        greenlet(endless).switch()


def test_endless_recursion_by_starting_greenlets_raises() -> None:
    # Each greenlet starts at its starter's depth. Otherwise only the memory would end this.
    run_clean(
        """
        from greenlet import greenlet

        started = 0

        def endless():
            global started
            started += 1
            assert started < 20_000, "not bounded"
            return greenlet(endless).switch()

        try:
            greenlet(endless).switch()
        except RecursionError:
            print("RecursionError")
        assert greenlet(lambda: "usable").switch() == "usable"
        """
    )


def test_a_changed_recursion_limit_holds_in_every_greenlet() -> None:
    previous = sys.getrecursionlimit()
    g = greenlet(lambda: (remaining_depth(), to_parent(), remaining_depth()))
    h = greenlet(lambda: (to_parent(), remaining_depth())[1])
    h.switch()
    g.switch()
    try:
        sys.setrecursionlimit(previous + 2_000)
        first, _, second = g.switch()
        assert second == first + 2_000
        assert h.switch() >= first + 1_900
        assert greenlet(remaining_depth).switch() >= first + 1_900
    finally:
        sys.setrecursionlimit(previous)
    assert abs(greenlet(remaining_depth).switch() - first) < 100


def test_a_limit_changed_inside_a_greenlet_holds_outside() -> None:
    previous = sys.getrecursionlimit()
    before = remaining_depth()

    def run() -> None:
        sys.setrecursionlimit(previous + 500)
        to_parent()
        sys.setrecursionlimit(previous)

    g = greenlet(run)
    g.switch()
    assert remaining_depth() == before + 500
    g.switch()
    assert remaining_depth() == before


HARNESS = """
import sys, threading
from greenlet import getcurrent, greenlet
{program}

def outcome():
    try:
        program()
    except (RecursionError, MemoryError) as error:
        # A parser that runs out of stack reports MemoryError on some versions.
        return type(error).__name__
    return "ended"

def in_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(outcome()))
    thread.start()
    thread.join()
    return results[0]

def usable():
    return sum(map(lambda value: value, range(10)))

def twice_with_a_switch_between():
    first = outcome()
    getcurrent().parent.switch(first)
    return outcome(), usable()

limit = int(sys.argv[1])
if limit:
    sys.setrecursionlimit(limit)
expected = in_thread()
# A greenlet's stack may be a little larger. So a program that has an end may come to it there.
fine = (expected, "ended")
g = greenlet(twice_with_a_switch_between)
first = g.switch()
assert first in fine, (first, expected)
assert outcome() in ("ended", "RecursionError", "MemoryError")
assert g.switch() == (first, 45), (first, expected)
assert in_thread() == expected
def under_c_calls():
    return list(map(lambda _: outcome(), [1]))[0]
assert greenlet(under_c_calls).switch() in fine
print(expected)
"""


def harness(name: str) -> str:

    return HARNESS.format(program=textwrap.dedent(PROGRAMS[name]))


# On Windows a thread has 2 MB, and frames are larger. There a thread overflows its stack in these
# programs, in one of them under a raised limit. A greenlet does not: it has 8 MiB.
OVERFLOW_IN_A_THREAD = (
    ["recursion through sorted", "recursion through re.sub", "release of a chain of generators"]
    if ON_WINDOWS and VERSION == (3, 13)
    else []
)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in OVERFLOW_IN_A_THREAD])
def test_deep_recursion_ends_in_a_greenlet_as_it_does_in_a_thread(name: str) -> None:
    assert run_clean(harness(name), args=["0"], timeout=60)


# Here a thread itself overflows its stack under the raised limit: each call of list.sort() takes
# 2 KiB, and the interpreter counts it as one C call.
CRASHES_IN_A_THREAD = {"recursion through sorted": [(3, 13)]}
RAISED = [
    name
    for name in PROGRAMS
    if "release" not in name
    and VERSION not in CRASHES_IN_A_THREAD.get(name, [])
    and name not in OVERFLOW_IN_A_THREAD
]


@since("C recursion is bounded for itself")
@pytest.mark.parametrize("name", RAISED)
def test_deep_recursion_under_a_raised_limit_ends_in_a_greenlet_as_in_a_thread(
    name: str,
) -> None:
    assert run_clean(harness(name), args=["100000"], timeout=60)


def test_python_recursion_as_deep_as_a_thread_allows_works_in_a_greenlet() -> None:
    previous = sys.getrecursionlimit()
    sys.setrecursionlimit(60_000)
    try:

        def deep(level: int) -> int:
            return level if level == 0 else 1 + deep(level - 1)

        assert in_thread(lambda: deep(50_000)) == 50_000
        assert greenlet(deep).switch(50_000) == 50_000
    finally:
        sys.setrecursionlimit(previous)


def test_a_greenlet_suspended_at_the_bottom_of_a_deep_recursion_comes_back() -> None:
    def deep(level: int) -> int:
        if level == 0:
            return int(to_parent())
        return 1 + int(next(map(deep, [level - 1])))

    family = [greenlet(deep) for _ in range(10)]
    for g in family:
        g.switch(100)
    assert [g.switch(index) for index, g in enumerate(family)] == [
        100 + index for index in range(10)
    ]


DEEP_IN_BOTH = """
import resource, sys, threading
from child import run_threads
from greenlet import greenlet

sys.setrecursionlimit(10_000_000)

def deep(level):
    return 0 if level == 0 else next(map(deep, [level - 1])) + 1

def ends(call, level):
    try:
        return call(level)
    except RecursionError:
        return "RecursionError"

def compare():
    for level in LEVELS:
        here = ends(deep, level)
        assert ends(lambda level: greenlet(deep).switch(level), level) == here, level
        # And in a greenlet that another one starts.
        nested = greenlet(lambda level: greenlet(deep).switch(level))
        assert ends(nested.switch, level) == here, level
"""
# 3.12 and 3.13 allow a number of C calls, whatever the size of the stack. 3.11 bounds C calls by
# the recursion limit alone. So a depth that kills a thread is not tried there.
DEPTHS = "[100, 40_000, 1_000_000]" if VERSION >= (3, 12) else "[100, 40_000]"


@pytest.mark.parametrize(("mebibytes", "threads"), [(64, 2), (256, 1)])
def test_recursion_that_works_in_a_thread_with_a_large_stack_works_in_a_greenlet(
    mebibytes: int, threads: int
) -> None:
    run_clean(
        f"LEVELS = {DEPTHS}\n{DEEP_IN_BOTH}"
        f"""
threading.stack_size({mebibytes} << 20)
for _ in range({threads}):
    run_threads(compare)
""",
        timeout=60,
    )


def test_recursion_that_works_in_a_main_thread_with_a_large_stack_works_in_a_greenlet() -> None:
    # The kernel reads the limit when it starts the program.
    run_clean(
        f"""
import os, resource, sys

limits = resource.getrlimit(resource.RLIMIT_STACK)
if "again" not in sys.argv:
    resource.setrlimit(resource.RLIMIT_STACK, (128 << 20, limits[1]))
    os.execv(sys.executable, [*sys.orig_argv, "again"])
LEVELS = {DEPTHS}
{DEEP_IN_BOTH}
compare()
""",
        timeout=60,
    )


def test_a_main_thread_whose_stack_becomes_larger_has_greenlets_with_larger_ones() -> None:
    run_clean(
        f"""
import resource, sys
from greenlet import getcurrent, greenlet

def start_a_hundred():
    started = [greenlet(lambda: getcurrent().parent.switch()) for _ in range(100)]
    for g in started:
        g.switch()
    return started

waiting = start_a_hundred()
limit = resource.getrlimit(resource.RLIMIT_STACK)[1]
resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, limit))
waiting += start_a_hundred()  # some of them on stacks from the pool
{DEEP_IN_BOTH}
for level in 100, 60_000:
    # Since 3.14 a main thread keeps the bounds that it started with.
    if ends(deep, level) == level:
        assert ends(greenlet(deep).switch, level) == level, level
""",
        timeout=60,
    )


def test_an_unlimited_main_stack_counts_as_a_usual_one() -> None:
    run_clean(
        """
        import resource
        from greenlet import greenlet, stacks

        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        if hard == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
            assert stacks.get_default_size() == 8 << 20
        assert greenlet(lambda: "ran").switch() == "ran"
        """
    )


# Debug builds of 3.15 take no less than 100 KiB.
@pytest.mark.parametrize("kibibytes", [128, 256])
def test_a_greenlet_has_a_usual_stack_in_a_thread_with_a_small_one(kibibytes: int) -> None:
    run_clean(
        f"""
        import sys, threading
        from greenlet import greenlet, stacks

        sys.setrecursionlimit(100_000)
        levels = 300 if (3, 12) <= sys.version_info < (3, 14) else 3_000
        results = []

        def deep(level):
            return 0 if level == 0 else next(map(deep, [level - 1])) + 1

        threading.stack_size({kibibytes} << 10)
        thread = threading.Thread(target=lambda: results.append(greenlet(deep).switch(levels)))
        thread.start()
        thread.join()
        assert results == [levels], results
        """
    )


# 3.12 and 3.13 count C calls. Those that need most C stack are sorts by a key function, or by an
# __lt__(), that sorts. (3.11 does not bound C calls.)
@since("C recursion is bounded for itself")
@pytest.mark.parametrize("size", [256 << 10, 300 << 10, 1 << 20, 4 << 20])
def test_too_deep_on_a_smaller_stack_is_recursion_error_and_no_crash(size: int) -> None:
    run_clean(
        f"""
        import json, sys
        from greenlet import greenlet, stacks

        sys.setrecursionlimit(1_000_000)
        stacks.set_default_size({size})

        def sorting(_=None):
            return sorted([1, 2], key=sorting)

        class Ordered:
            def __lt__(self, other):
                return sorted([Ordered(), Ordered()])

        def ordering():
            return sorted([Ordered(), Ordered()])

        def mapping(_=None):
            return list(map(mapping, [1]))

        def formatting():
            class Formatted:
                def __format__(self, spec):
                    return f"{{self}}"
            return f"{{Formatted()}}"

        def comparing():
            left, right = [], []
            for _ in range(100_000):
                left, right = [left], [right]
            return left == right

        def loading():
            return json.loads("[" * 100_000 + "]" * 100_000)

        def ends(function):
            try:
                function()
            except RecursionError:
                return "RecursionError"

        for function in (sorting, ordering, mapping, formatting, comparing, loading):
            assert greenlet(ends).switch(function) == "RecursionError", function
        """,
        timeout=60,
    )


def test_the_calls_that_making_an_exception_may_use_beyond_the_limit_are_not_given_to_others() -> (
    None
):
    """CPython makes exceptions with some calls more than the limit, and ends what uses them up."""
    run_clean(
        """
        import ctypes
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        class Switching(Exception):
            def __init__(self):
                main.switch()

        def normalize():
            pointers = [ctypes.py_object(Switching), ctypes.py_object(), ctypes.py_object()]
            ctypes.pythonapi.PyErr_NormalizeException(*map(ctypes.byref, pointers))
            return pointers[1].value

        def endless():
            endless()

        def recursion_ends():
            try:
                endless()
            except RecursionError:
                return True

        g = greenlet(normalize)
        g.switch()
        assert recursion_ends()
        assert greenlet(recursion_ends).switch()
        assert type(g.switch()) is Switching
        assert recursion_ends()
        """
    )
