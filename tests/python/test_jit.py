"""Greenlets that wait in machine code of CPython's JIT; CPython may discard the code then.

The JIT is off by default, so each test runs a program with PYTHON_JIT=1. `make test-jit` runs this
file and all others on interpreters that have it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import pytest
from helpers import VERSION, run_clean

jit: Any = getattr(sys, "_jit", None)  # 3.14+

if jit is None or not jit.is_available():
    pytest.skip(
        "this interpreter was not compiled with the JIT (sys._jit.is_available())",
        allow_module_level=True,
    )

# Ways to wait again and again. Each gets a function that leaves the greenlet and returns 1, and a
# list whose only item has to grow by that. They call leave() in machine code: the first directly,
# the second from a trace that another trace leads to, the others through more calls.
SHAPES: Mapping[str, str] = {
    "loop": """
        def wait(leave, count):
            while True:
                count[0] += leave()
        """,
    "side_trace": """
        def wait(leave, count):
            number = 0
            while True:
                number += 1
                if number & 3:
                    count[0] += leave()
                else:
                    count[0] += leave()
        """,
    "generator": """
        def values(leave):
            while True:
                yield leave()
        def wait(leave, count):
            for value in values(leave):
                count[0] += value
        """,
    "python_function": """
        def step(leave):
            return leave()
        def wait(leave, count):
            while True:
                count[0] += step(leave)
        """,
    "through_c": """
        def wait(leave, count):
            step = lambda _: leave()
            while True:
                for value in map(step, "ab"):
                    count[0] += value
        """,
    "c_alone": """
        def wait(leave, count):
            import itertools
            def add(value):
                count[0] += value
            repeat = itertools.repeat
            while True:
                any(map(add, itertools.starmap(leave, repeat((), 3))))
        """,
    "loops_in_loops": """
        def inner(leave, count):
            for _ in range(3):
                count[0] += leave()
            return 0
        def middle(leave, count):
            for _ in range(3):
                sorted((1, 2), key=lambda _: inner(leave, count))
            return 0
        def wait(leave, count):
            while True:
                sorted((1, 2), key=lambda _: middle(leave, count))
        """,
}

# The ways whose machine code itself calls leave(). 3.14 does not compile a loop over a generator.
DIRECT = ["loop", "side_trace", "python_function"]
if VERSION >= (3, 15):
    DIRECT.append("generator")

# What makes CPython discard machine code.
DISCARD: Mapping[str, str] = {
    "nothing": "",
    "tracing": """
        sys.settrace(lambda *_: None)
        sys.settrace(None)
        """,
    "tracing_goes_on": """
        sys.settrace(lambda *_: None)
        """,
    "monitoring": """
        sys.monitoring.use_tool_id(3, "test")
        sys.monitoring.set_events(3, sys.monitoring.events.BRANCH_LEFT)
        sys.monitoring.set_events(3, 0)
        sys.monitoring.free_tool_id(3)
        """,
    "caches_cleared": "sys._clear_internal_caches()",
    "locals_written": """
        for task in tasks:
            frame = task.gr_frame
            while frame is not None:
                frame.f_locals["another"] = 1
                frame = frame.f_back
        """,
    "functions_changed": """
        def other():
            pass
        for function in (wait, resume):
            code = function.__code__
            function.__code__ = (lambda *_: None).__code__
            function.__code__ = code
        """,
    "cold": """
        for _ in range(3000):
            compile_a_loop()
        """,
}

PROGRAM = """
import gc
import sys
from greenlet import getcurrent, greenlet

def compile_a_loop():
    space = {{}}
    exec("def run(n):\\n t = 0\\n for i in range(n):\\n  t += i\\n return t", space)
    space["run"](6000)

def reuse_memory():
    kept = [[] for _ in range(200_000)]  # a collection runs, and frees discarded code
    del kept
    gc.collect()
    for _ in range(300):
        compile_a_loop()

{shape}

def resume(tasks, rounds):
    for _ in range(rounds):
        for task in tasks:
            task.switch(1)

def start(number, leave):
    counts = [[0] for _ in range(number)]
    tasks = [greenlet(wait) for _ in range(number)]
    for task, count in zip(tasks, counts):
        task.switch(leave, count)
    for ahead in range(4):
        resume(tasks[ahead::4], ahead)
    return tasks, counts

def discard():
{discard}
"""


def run(shape: str, discard: str, rest: str) -> list[str]:
    """Run PROGRAM and the rest with the JIT, and return the lines that it prints."""
    source = PROGRAM.format(
        shape=textwrap.dedent(SHAPES[shape]),
        discard=textwrap.indent(f"{textwrap.dedent(DISCARD[discard])}\npass", "    "),
    )
    return run_clean(
        source + textwrap.dedent(rest), timeout=60, env={"PYTHON_JIT": "1"}
    ).splitlines()


@pytest.mark.parametrize("shape", DIRECT)
def test_these_programs_wait_in_machine_code(shape: str) -> None:
    # The tests below rely on it.
    printed = run(
        shape,
        "nothing",
        """
        main = getcurrent()
        def leave():
            main.switch(sys._jit.is_active())
            return 1
        tasks, counts = start(20, leave)
        resume(tasks, 10_000)
        print([task.switch(1) for task in tasks])
        """,
    )
    assert printed == [str([True] * 20)]


@pytest.mark.parametrize("discard", DISCARD)
@pytest.mark.parametrize("shape", SHAPES)
def test_machine_code_is_discarded_while_greenlets_wait_in_it(shape: str, discard: str) -> None:
    printed = run(
        shape,
        discard,
        """
        tasks, counts = start(20, getcurrent().switch)
        resume(tasks, 10_000)
        discard()
        reuse_memory()
        resume(tasks, 3)
        discard()
        resume(tasks, 10_000)
        reuse_memory()
        resume(tasks, 10)
        print(*(count - index % 4 for index, (count,) in enumerate(counts)))
        """,
    )
    assert printed == [" ".join(["20013"] * 20)]


@pytest.mark.parametrize("discard", DISCARD)
def test_a_greenlet_discards_the_machine_code_that_the_main_greenlet_waits_in(discard: str) -> None:
    printed = run(
        "loop",
        discard,
        """
        main = getcurrent()
        def discarding(_):
            for _ in range(3):
                for _ in range(5000):
                    main.switch()
                discard()
                reuse_memory()
            return "done"
        tasks, counts = start(4, main.switch)
        for _ in range(4):
            resume([*tasks, greenlet(discarding)], 15_001)
            print(*(count - index % 4 for index, (count,) in enumerate(counts)))
        """,
    )
    assert printed == [" ".join([str(15_001 * rounds)] * 4) for rounds in (1, 2, 3, 4)]


@pytest.mark.parametrize("discard", ["nothing", "tracing", "caches_cleared"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_exception_is_raised_in_machine_code_that_has_been_discarded(
    shape: str, discard: str
) -> None:
    printed = run(
        shape,
        discard,
        """
        tasks, counts = start(20, getcurrent().switch)
        resume(tasks, 10_000)
        discard()
        reuse_memory()
        for index, task in enumerate(tasks):
            try:
                task.throw(KeyError(index))
            except KeyError as error:
                print(task.dead, error)
        """,
    )
    assert printed == [f"True {index}" for index in range(20)]


@pytest.mark.parametrize("discard", ["nothing", "tracing"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_process_ends_while_greenlets_wait_in_machine_code(shape: str, discard: str) -> None:
    printed = run(
        shape,
        discard,
        """
        tasks, counts = start(20, getcurrent().switch)
        resume(tasks, 10_000)
        discard()
        print("end")
        """,
    )
    assert printed == ["end"]


@pytest.mark.parametrize("discard", ["nothing", "tracing"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thread_ends_while_its_greenlets_wait_in_machine_code(shape: str, discard: str) -> None:
    printed = run(
        shape,
        discard,
        """
        import threading
        ended = []
        def to_the_end(*args):
            try:
                wait(*args)
            finally:
                ended.append(True)
        def work():
            leave = getcurrent().switch
            tasks = [greenlet(to_the_end) for _ in range(20)]
            for task in tasks:
                task.switch(leave, [0])
            for ahead in range(4):
                resume(tasks[ahead::4], ahead)
            resume(tasks, 10_000)
            kept.append(tasks)
        kept = []
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
            thread.join()
            discard()
            reuse_memory()
        print(len(ended), {task.dead for tasks in kept for task in tasks})
        """,
    )
    assert printed == ["60 {True}"]


def test_the_child_of_a_fork_goes_on_in_machine_code() -> None:
    printed = run(
        "side_trace",
        "tracing",
        """
        import os
        import threading
        def wait_in_thread():
            tasks, counts = start(20, getcurrent().switch)
            resume(tasks, 10_000)
            started.set()
            finished.wait()
        started, finished = threading.Event(), threading.Event()
        thread = threading.Thread(target=wait_in_thread)
        thread.start()
        started.wait()
        tasks, counts = start(20, getcurrent().switch)
        resume(tasks, 10_000)
        import warnings
        warnings.simplefilter("ignore")  # about a fork beside another thread
        child = os.fork()
        discard()
        reuse_memory()
        resume(tasks, 10)
        finished.set()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            thread.join()
        """,
    )
    assert printed == ["0"]


def test_greenlets_that_wait_in_machine_code_are_collected() -> None:
    printed = run(
        "side_trace",
        "tracing",
        """
        ended = []
        def in_a_cycle(*args):
            try:
                wait(*args)
            finally:
                ended.append(me)
        def round():
            tasks = [greenlet(in_a_cycle) for _ in range(20)]
            for task in tasks:
                task.me = task
                task.switch(getcurrent().switch, [0])
            for ahead in range(4):
                resume(tasks[ahead::4], ahead)
            resume(tasks, 10_000)
        me = None
        round()
        discard()
        gc.collect()
        reuse_memory()
        print(len(ended))
        """,
    )
    assert printed == ["20"]


@pytest.mark.skipif(VERSION < (3, 15), reason="3.14 itself frees no machine code of a loop")
@pytest.mark.parametrize("end", ["tasks.clear()", "[task.throw() for task in tasks]", "finish()"])
def test_machine_code_that_greenlets_waited_in_is_freed(end: str) -> None:
    (pages,) = run(
        "loop",
        "nothing",
        """
        source = (
            "def wait(leave):\\n number = 0\\n while not stop:\\n  leave()\\n"
            + "  number += 1\\n" * 60  # makes more than ten pages of machine code
        )
        def round():
            space = {"stop": []}
            exec(source, space)
            tasks = [greenlet(space["wait"]) for _ in range(4)]
            for task in tasks:
                task.switch(getcurrent().switch)
            resume(tasks, 2500)
            def finish():
                space["stop"].append(True)
                for task in tasks:
                    task.switch(1)
                    assert task.dead
            END
            return [[] for _ in range(5_000)]  # a collection runs, and frees the code
        from child import address_space
        for _ in range(50):
            round()
        before = address_space()
        for _ in range(100):
            round()
        print((address_space() - before) // 4096)
        """.replace("END", end),
    )
    assert int(pages) < 500
