"""greenlet.stacks: sizes, settings, the pool and its figures."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from child import address_space
from greenlet import getcurrent, greenlet, stacks
from helpers import (
    IN_LARGE,
    IN_USUAL,
    collect,
    in_background,
    in_thread,
    memory_is_given_back,
    run_clean,
    run_script,
    stacks_stay_in_place,
    to_parent,
)

T = TypeVar("T")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def the_settings_come_back() -> Iterator[None]:
    collect()
    bound = stacks.get_pool_bound()
    yield
    stacks.set_default_size(None)
    stacks.set_pool_bound(bound)


def suspended(count: int) -> list[greenlet]:
    family = [greenlet(to_parent) for _ in range(count)]
    for g in family:
        g.switch()
    return family


def in_thread_with(stack_bytes: int, function: Callable[[], T]) -> T:
    previous = threading.stack_size(stack_bytes)
    try:
        return in_thread(function)
    finally:
        threading.stack_size(previous)


def test_the_default_size_is_that_of_the_thread() -> None:
    assert in_thread_with(64 * MIB, stacks.get_default_size) == 64 * MIB


def test_the_default_size_is_that_of_usual_threads_at_least() -> None:
    assert stacks.get_default_size() >= 8 * MIB
    assert in_thread_with(MIB, stacks.get_default_size) == 8 * MIB


def test_a_default_size_that_was_set_holds_in_every_thread() -> None:
    stacks.set_default_size(MIB)
    assert in_thread_with(64 * MIB, stacks.get_default_size) == MIB


def test_setting_the_default_size_returns_what_was_set_before() -> None:
    at_first = stacks.get_default_size()
    assert stacks.set_default_size(MIB) is None
    assert stacks.get_default_size() == MIB
    assert stacks.set_default_size(2 * MIB) == MIB
    assert stacks.set_default_size(None) == 2 * MIB
    assert stacks.set_default_size(None) is None
    assert stacks.get_default_size() == at_first


def test_the_default_size_is_rounded_up_to_whole_pages() -> None:
    stacks.set_default_size(MIB + 1)
    size = stacks.get_default_size()
    assert size > MIB
    assert size % 4096 == 0


@pytest.mark.parametrize("size", [-1, 0, 1, 1 << 60, 1 << 80, -(1 << 80)])
def test_a_default_size_out_of_range_is_refused(size: int) -> None:
    previous = stacks.get_default_size()
    with pytest.raises((ValueError, OverflowError)) as caught:
        stacks.set_default_size(size)
    assert caught.type is ValueError
    assert stacks.get_default_size() == previous


def test_the_error_names_the_range() -> None:
    for size in (stacks.MIN_SIZE - 1, stacks.MAX_SIZE + 1, -1, 1 << 80):
        with pytest.raises(ValueError, match=f"{size}.*{stacks.MIN_SIZE}.*{stacks.MAX_SIZE}"):
            stacks.set_default_size(size)
    for size in (stacks.MIN_SIZE, stacks.MAX_SIZE):
        stacks.set_default_size(size)
        assert stacks.get_default_size() == size
        assert greenlet(lambda: "ran").switch() == "ran"


@pytest.mark.parametrize("size", ["1 MiB", 1.5])
def test_a_default_size_must_be_an_int(size: Any) -> None:
    with pytest.raises(TypeError):
        stacks.set_default_size(size)


def test_setting_the_pool_bound_returns_the_previous_one() -> None:
    previous = stacks.get_pool_bound()
    assert stacks.set_pool_bound(3) == previous
    assert stacks.get_pool_bound() == 3
    assert stacks.set_pool_bound(0) == 3
    assert stacks.get_pool_bound() == 0


@pytest.mark.parametrize("bound", [-1, -(1 << 80), 1 << 80])
def test_a_pool_bound_out_of_range_is_refused(bound: int) -> None:
    previous = stacks.get_pool_bound()
    with pytest.raises(ValueError):
        stacks.set_pool_bound(bound)
    assert stacks.get_pool_bound() == previous


def test_a_new_greenlet_has_no_stack_and_a_suspended_one_has() -> None:
    before = stacks.statistics().in_use
    family = [greenlet(to_parent) for _ in range(10)]
    assert stacks.statistics().in_use == before
    for g in family:
        g.switch()
    assert stacks.statistics().in_use == before + 10
    for g in family:
        g.switch()
    assert stacks.statistics().in_use == before


def test_a_dropped_greenlet_gives_its_stack_back() -> None:
    before = stacks.statistics().in_use
    family = suspended(10)
    assert stacks.statistics().in_use == before + 10
    family.clear()
    collect()
    assert stacks.statistics().in_use == before


def test_a_greenlet_that_ends_by_an_exception_gives_its_stack_back() -> None:
    before = stacks.statistics().in_use

    def failing() -> None:
        raise KeyError

    for _ in range(10):
        with pytest.raises(KeyError):
            greenlet(failing).switch()
    assert stacks.statistics().in_use == before


def test_the_figures_add_up() -> None:
    family = suspended(50)
    now = stacks.statistics()
    assert now.reserved == now.in_use + now.pooled
    assert now.in_use >= 50
    assert stacks.resident_bytes() > 0
    for g in family:
        g.switch()
    assert stacks.statistics().reserved == stacks.statistics().pooled + stacks.statistics().in_use


def test_stacks_are_used_again() -> None:
    for g in suspended(20):
        g.switch()
    reserved = stacks.statistics().reserved
    for _ in range(100):
        greenlet(to_parent).switch()
        for g in suspended(20):
            g.switch()
    assert stacks.statistics().reserved <= reserved + 1


def test_the_running_greenlets_stack_counts_as_in_use() -> None:
    before = stacks.statistics().in_use
    assert greenlet(lambda: stacks.statistics().in_use).switch() == before + 1


def test_stacks_of_an_ended_thread_are_given_back() -> None:
    before = stacks.statistics().in_use

    def body() -> None:
        for g in suspended(10):
            g.switch()
        kept.extend(suspended(10))

    kept: list[greenlet] = []
    in_thread(body)
    kept.clear()
    collect()
    getcurrent()
    assert stacks.statistics().in_use == before


@memory_is_given_back
def test_a_suspended_greenlet_needs_little_memory() -> None:
    count = 2_000
    before = stacks.resident_bytes()
    family = suspended(count)
    per_greenlet = (stacks.resident_bytes() - before) / count
    assert per_greenlet <= 2 * 4096
    for g in family:
        g.switch()


@stacks_stay_in_place
def test_memory_that_deep_calls_touched_is_given_back_in_the_pool() -> None:
    def deep(level: int) -> int:
        # Through C, so that the C stack grows, too.
        return 0 if level == 0 else next(map(deep, [level - 1])) + 1

    def run() -> None:
        deep(150)
        to_parent()

    before = stacks.resident_bytes()
    family = [greenlet(run) for _ in range(200)]
    family[0].switch()
    of_one = stacks.resident_bytes() - before  # taken now, because the sweep may trim it later
    for g in family[1:]:
        g.switch()
    for g in family:
        g.switch()
    rest = stacks.resident_bytes() - before
    assert of_one > 16 * 1024
    assert rest < len(family) * of_one / 2


def test_the_pool_bound_bounds_the_memory_kept() -> None:
    def resident_after(bound: int) -> int:
        stacks.set_pool_bound(bound)
        for g in suspended(2_000):
            g.switch()
        gc.collect()
        return stacks.resident_bytes()

    assert resident_after(10) <= 2_000 * 4096


def test_a_pool_bound_of_zero_works() -> None:
    stacks.set_pool_bound(0)
    for _ in range(3):
        for g in suspended(100):
            g.switch()
    assert greenlet(lambda: "ran").switch() == "ran"


@pytest.mark.parametrize("size", [256 << 10, 512 << 10, MIB, 64 * MIB])
def test_greenlets_run_on_stacks_of_other_sizes(size: int) -> None:
    stacks.set_default_size(size)
    family = suspended(20)
    assert [g.switch(index) for index, g in enumerate(family)] == list(range(20))

    def deep(level: int) -> int:
        return 0 if level == 0 else deep(level - 1) + 1

    assert greenlet(deep).switch(800) == 800


@memory_is_given_back
def test_one_greenlet_may_have_a_size_of_its_own() -> None:
    run_clean(
        f"""
        import sys
        from greenlet import greenlet, stacks

        sys.setrecursionlimit(10_000_000)

        def deep(level):
            return 0 if level == 0 else next(map(deep, [level - 1])) + 1

        large = greenlet(deep)
        stacks.set_size(large, 64 << 20)
        assert large.switch({IN_LARGE}) == {IN_LARGE}
        assert stacks.statistics().in_use == 0
        assert greenlet(deep).switch({IN_USUAL}) == {IN_USUAL}
        """
    )


def test_a_greenlet_with_a_small_stack_has_no_more() -> None:
    sizes = []
    for size in (None, MIB, 64 * MIB):
        g = greenlet(to_parent)
        stacks.set_size(g, size)
        before = address_space()
        family = [greenlet(to_parent) for _ in range(128)]
        for member in family:
            stacks.set_size(member, size)
            member.switch()
        sizes.append(address_space() - before)
        for member in family:
            member.switch()
    assert sizes[1] < sizes[2]
    assert sizes[2] >= 128 * 64 * MIB


def test_the_size_of_one_greenlet_may_be_taken_back() -> None:
    g = greenlet(to_parent)
    stacks.set_size(g, stacks.MAX_SIZE)
    stacks.set_size(g, None)
    before = address_space()
    g.switch()
    assert address_space() - before < stacks.MAX_SIZE
    g.switch()


@pytest.mark.parametrize("size", [0, -1, (256 << 10) - 1, (1 << 30) + 1, 1 << 80])
def test_a_size_out_of_range_is_refused_for_one_greenlet(size: int) -> None:
    g = greenlet(to_parent)
    with pytest.raises(ValueError, match="out of range"):
        stacks.set_size(g, size)
    g.switch()
    g.switch()


def test_the_size_of_a_greenlet_that_has_started_cannot_be_set() -> None:
    g = greenlet(to_parent)
    g.switch()
    with pytest.raises(ValueError, match="has started"):
        stacks.set_size(g, MIB)
    g.switch()
    with pytest.raises(ValueError, match="has started"):
        stacks.set_size(g, MIB)
    with pytest.raises(ValueError, match="has started"):
        stacks.set_size(getcurrent(), MIB)


def test_only_a_greenlet_has_a_size() -> None:
    wrong: Any = object()
    with pytest.raises(TypeError):
        stacks.set_size(wrong, MIB)


def test_stacks_of_many_sizes_are_given_back() -> None:
    def life() -> None:
        family = [greenlet(to_parent) for _ in range(200)]
        for index, g in enumerate(family):
            stacks.set_size(g, (index % 20 + 1) * MIB)
            g.switch()
        for g in family:
            g.switch()

    life()
    before = stacks.statistics()
    for _ in range(5):
        life()
    after = stacks.statistics()
    assert after.in_use == before.in_use
    assert after.reserved <= before.reserved + 300


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", MIB), ("300K", 300 << 10), ("16M", 16 * MIB), ("16m", 16 * MIB), ("1G", 1 << 30)],
)
def test_the_environment_may_set_the_default_size(text: str, size: int) -> None:
    printed = run_clean(
        "from greenlet import stacks; print(stacks.get_default_size())",
        env={"GREENLET_STACK_SIZE": text},
    )
    assert int(printed) == size


def test_an_empty_variable_sets_nothing() -> None:
    run_clean(
        """
        from greenlet import stacks
        assert stacks.set_default_size(1 << 20) is None
        """,
        env={"GREENLET_STACK_SIZE": ""},
    )


@pytest.mark.parametrize("text", ["1", "2G", "1 MiB", "-1", "many", "8MB", "9" * 40, "\udcff"])
def test_a_wrong_value_in_the_environment_is_a_warning(text: str) -> None:
    outcome = run_script(
        """
        import greenlet
        from greenlet import stacks
        assert stacks.set_default_size(1 << 20) is None
        print(greenlet.greenlet(lambda: "ran").switch())
        """,
        env={"GREENLET_STACK_SIZE": text},
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "ran\n"
    assert "RuntimeWarning: GREENLET_STACK_SIZE=" in outcome.stderr
    assert f"{stacks.MIN_SIZE} to {stacks.MAX_SIZE}" in outcome.stderr


def test_a_changed_size_holds_for_greenlets_that_start_afterwards() -> None:
    family = suspended(10)
    stacks.set_default_size(MIB)
    family += suspended(10)
    stacks.set_default_size(16 * MIB)
    family += suspended(10)
    assert [g.switch(index) for index, g in enumerate(family)] == list(range(30))


def test_too_deep_on_a_small_stack_is_recursion_error_where_c_recursion_is_bounded() -> None:
    run_clean(
        """
        import sys
        from greenlet import greenlet, stacks

        stacks.set_default_size(256 << 10)

        def deep():
            list(map(lambda _: deep(), [1]))

        if sys.version_info >= (3, 12):
            sys.setrecursionlimit(100_000)
        else:
            sys.setrecursionlimit(150)  # 3.11 bounds C recursion by nothing else

        def run():
            try:
                deep()
            except RecursionError:
                return "RecursionError"

        for _ in range(3):
            assert greenlet(run).switch() == "RecursionError"
        """
    )


def test_a_large_stack_allows_deeper_c_recursion_where_its_bounds_are_known() -> None:
    run_clean(
        """
        import sys
        from greenlet import greenlet, stacks

        if sys.version_info < (3, 14):
            sys.exit()  # there CPython counts C calls

        def deep(level):
            return 0 if level == 0 else next(map(deep, [level - 1])) + 1

        def reached():
            low, high = 0, 1_000_000
            while high - low > 100:
                middle = (low + high) // 2
                try:
                    greenlet(deep).switch(middle)
                except RecursionError:
                    high = middle
                else:
                    low = middle
            return low

        sys.setrecursionlimit(10_000_000)
        stacks.set_default_size(1 << 20)
        small = reached()
        stacks.set_default_size(4 << 20)
        large = reached()
        assert 3 < large / small < 5, (small, large)
        """,
        timeout=60,
    )


def test_fifty_thousand_greenlets_may_be_suspended_at_once() -> None:
    run_clean(
        """
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def run(index):
            return index + main.switch()

        family = [greenlet(run) for _ in range(50_000)]
        for index, g in enumerate(family):
            g.switch(index)
        assert [g.switch(1) for g in family] == [index + 1 for index in range(50_000)]
        """,
        timeout=60,
    )


def test_the_settings_may_be_changed_from_within_greenlets_and_threads() -> None:
    def change() -> int:
        stacks.set_default_size(2 * MIB)
        stacks.set_pool_bound(7)
        return int(greenlet(lambda: 1).switch())

    assert greenlet(change).switch() == 1
    assert (stacks.get_default_size(), stacks.get_pool_bound()) == (2 * MIB, 7)
    assert in_thread(change) == 1


def test_statistics_may_be_asked_for_while_threads_switch() -> None:
    def switcher(stop: threading.Event) -> None:
        while not stop.is_set():
            for g in suspended(10):
                g.switch()

    with in_background(*[switcher] * 3):
        for _ in range(100):
            now = stacks.statistics()
            assert now.reserved >= now.pooled
