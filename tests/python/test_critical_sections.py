"""A greenlet that leaves inside an operation on a locked object locks nobody out.

Free-threaded builds lock lists, dicts, types… for the length of an operation. The cases of
critical_section_cases.py must work on every build. Where CPython refuses the result, it refuses it
with greenlets as it does with threads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from critical_section_cases import AT_ONCE, CASES, MONITORED, VARIANTS
from helpers import DEBUG_BUILD, FREE_THREADED, TIME_SCALE, VERSION, run_clean

PROGRAM = Path(__file__).with_name("critical_section_cases.py")
SECONDS_PER_CASE = 10 * TIME_SCALE

Outcomes = dict[str, str]


def is_sound(variant: str, name: str) -> bool:
    """Whether CPython itself survives the case."""
    if variant == MONITORED:
        # See helpers.frames_are_instrumented_anew.
        return not DEBUG_BUILD or not (3, 12) <= VERSION < (3, 15)
    return variant != AT_ONCE or not FREE_THREADED or CASES[name].sound_since <= VERSION


def run_cases(variant: str) -> Outcomes:
    """Run all cases in one child process, or more if some hang or crash; return the outcomes."""
    outcomes: Outcomes = {}
    while left := [name for name in CASES if name not in outcomes and is_sound(variant, name)]:
        command = [sys.executable, "-X", "faulthandler", str(PROGRAM), variant]
        done = subprocess.run(
            [*command, str(SECONDS_PER_CASE), *left],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=SECONDS_PER_CASE * len(left),
        )
        lines = done.stdout.splitlines()
        assert lines and lines[0] == left[0], f"nothing was run\n{done.stderr}"
        outcomes.update(zip(lines[::2], lines[1::2], strict=False))
        if len(lines) % 2:
            outcomes[lines[-1]] = f"the program ended with {done.returncode}\n{done.stderr}"
        elif done.returncode or done.stderr:
            outcomes[lines[-2]] += f", but then status {done.returncode}\n{done.stderr}"
    return outcomes


@pytest.fixture(scope="module")
def outcomes_of() -> Callable[[str], Outcomes]:
    known: dict[str, Outcomes] = {}

    def run(variant: str) -> Outcomes:
        if variant not in known:
            known[variant] = run_cases(variant)
        return known[variant]

    return run


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_locked_object_that_a_greenlet_left_is_free_for(
    variant: str, name: str, outcomes_of: Callable[[str], Outcomes]
) -> None:
    if not is_sound(variant, name):
        pytest.skip("CPython of this release crashes when threads do so")
    assert outcomes_of(variant)[name] == "ended"


def test_a_switch_to_oneself_after_one_inside_a_locked_object_works() -> None:
    # A regression: a greenlet resumed a critical section that had ended.
    run_clean(
        """
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def key(item):
            g = greenlet(main.switch)
            g.switch()
            g.switch()
            return item

        finished = greenlet(lambda: None)
        finished.switch()
        for _ in range(3):
            [2, 1].sort(key=key)
            main.switch()
            finished.switch()
            finished.throw()
        """
    )


def test_greenlets_that_sleep_inside_the_same_object_may_wake_in_any_order() -> None:
    # Each greenlet takes its lock again when it wakes, although another one had it in between.
    run_clean(
        """
        import itertools
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def items(name):
            for number in range(2):
                main.switch()
                yield name, number

        for order in itertools.permutations("aabbcc"):
            thing = []
            family = {name: greenlet(thing.extend) for name in "abc"}
            for name, g in family.items():
                g.switch(items(name))
            for name in order:
                family[name].switch()
            for name, g in family.items():
                g.switch()
                assert g.dead
                assert [item for item in thing if item[0] == name] == [(name, 0), (name, 1)]
        """
    )


def test_a_greenlet_killed_inside_a_locked_object_leaves_it_free() -> None:
    run_clean(
        """
        import threading
        from greenlet import GreenletExit, getcurrent, greenlet

        main = getcurrent()
        thing = [2, 1]
        table = {}

        def key(item):
            main.switch()
            return item

        for end in (greenlet.throw, lambda g: None):
            g = greenlet(lambda: thing.sort(key=key))
            g.switch()
            end(g)
            del g
            thing.append(3)
            thread = threading.Thread(target=thing.append, args=(4,))
            thread.start()
            thread.join()
            assert thing[-2:] == [3, 4]
        """
    )


def test_a_thread_may_end_with_greenlets_that_sleep_inside_an_object_that_others_use() -> None:
    run_clean(
        """
        import threading
        from greenlet import getcurrent, greenlet

        thing = []
        ended = []

        def items():
            yield 1
            try:
                getcurrent().parent.switch()
            finally:
                thing.append("finally")
                ended.append(1)

        def work():
            for _ in range(5):
                g = greenlet(thing.extend)
                g.switch(items())
                kept.append(g)

        kept = []
        for _ in range(3):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            thing.append("main")
        assert len(ended) == 15, ended
        assert thing.count("finally") == 15 and thing.count("main") == 3
        """
    )
