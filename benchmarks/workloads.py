#!/usr/bin/env python3
"""What is timed: one small loop for each benchmark, run under pyperf on the `greenlet` at hand.

    python benchmarks/workloads.py [pyperf options] [NAME ...]

compare.py runs this for two installations in turn, and guard.py counts the instructions of some.
Each function repeats its work `loops` times and returns the seconds that took. The cost of the loop
and of the Python call to `switch` is part of every figure, on both sides; `call` tells how much
that is.
"""

from __future__ import annotations

import contextvars
import ctypes
import itertools
import threading
from collections.abc import Callable, Generator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from greenlet import _C_API, getcurrent, greenlet, settrace

if TYPE_CHECKING:
    import argparse

# --- peers: what else a Python program could do in place of a switch ---------------------------


def call(loops: int) -> float:
    """For scale: the loop of `switch` around a C method that does nothing."""
    method = "".isascii
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        method()
    return perf_counter() - begin


def send(loops: int) -> float:
    """A generator is resumed and yields: there and back."""

    def echo() -> Generator[None, None, None]:
        while True:
            yield

    generator = echo()
    next(generator)
    send = generator.send
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        send(None)
    return perf_counter() - begin


def asyncio_switch(loops: int) -> float:
    """Two tasks of an event loop that let each other run: sleep(0)."""
    import asyncio  # not where guard.py counts every instruction

    async def yield_often(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def measure() -> float:
        begin = perf_counter()
        await asyncio.gather(yield_often(loops), yield_often(loops))
        return perf_counter() - begin

    return asyncio.run(measure())


def thread_switch(loops: int) -> float:
    """Two threads that wake each other by locks."""
    mine, other = threading.Lock(), threading.Lock()
    mine.acquire()
    other.acquire()

    def answer() -> None:
        for _ in range(loops):
            other.acquire()
            mine.release()

    thread = threading.Thread(target=answer)
    thread.start()
    begin = perf_counter()
    for _ in range(loops):
        other.release()
        mine.acquire()
    seconds = perf_counter() - begin
    thread.join()
    return seconds


# --- switches --------------------------------------------------------------------------------


def switch_for_ever() -> None:
    """Run by a greenlet: answers each switch from its parent with another."""
    switch = getcurrent().parent.switch  # type: ignore[union-attr]
    while True:
        switch()


def time_switches(there: greenlet, loops: int) -> float:
    """The seconds of so many round trips to a greenlet that waits."""
    switch = there.switch
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        switch()
    return perf_counter() - begin


def switch(loops: int) -> float:
    """Two greenlets that do nothing but switch to each other, without a value."""
    there = greenlet(switch_for_ever)
    there.switch()  # started: from here on both wait in switch()
    return time_switches(there, loops)


def switch_value(loops: int) -> float:
    """The same, and one object goes to and fro."""
    main = getcurrent()

    def other(value: object) -> None:
        switch = main.switch
        while True:
            value = switch(value)

    there = greenlet(other)
    value = there.switch("value")
    switch = there.switch
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        value = switch(value)
    seconds = perf_counter() - begin
    assert value == "value"
    return seconds


def switch_c_api(loops: int) -> float:
    """The same without one, by `PyGreenlet_Switch()`, as compiled programs do; ctypes is on top."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = (ctypes.c_void_p * 12).from_address(get_pointer(_C_API, b"greenlet._C_API"))
    prototype = ctypes.PYFUNCTYPE(
        *(ctypes.py_object, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
    )
    c_switch = prototype(table[6] or 0)
    main = getcurrent()

    def other() -> None:
        while True:
            c_switch(main, None, None)

    there = greenlet(other)
    there.switch()
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        c_switch(there, None, None)
    return perf_counter() - begin


def traced(loops: int) -> float:
    """`switch` with a trace callback that does nothing: two calls of it for each round trip."""

    def callback(event: str, greenlets: object) -> None:
        pass

    there = greenlet(switch_for_ever)
    there.switch()
    settrace(callback)
    try:
        return time_switches(there, loops)
    finally:
        settrace(None)


def context_variables(loops: int) -> float:
    """`switch` between greenlets with a context each, and each reads a variable after it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    main = getcurrent()

    def other() -> None:
        variable.set("there")
        switch, get = main.switch, variable.get
        while True:
            switch()
            get()

    there = greenlet(other)
    variable.set("here")
    there.switch()
    switch, get = there.switch, variable.get
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        switch()
        get()
    seconds = perf_counter() - begin
    assert get() == "here"
    return seconds


def throw(loops: int) -> float:
    """Throw an exception into a greenlet that catches it and waits again."""
    main = getcurrent()

    def other() -> None:
        switch = main.switch
        while True:
            try:  # noqa: SIM105 (contextlib.suppress() would be timed)
                switch()
            except ValueError:
                pass

    there = greenlet(other)
    there.switch()
    throw = there.throw
    exception = ValueError
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        throw(exception)
    return perf_counter() - begin


# --- depth -----------------------------------------------------------------------------------


def deep(descend: Callable[..., float], depth: int, loops: int) -> float:
    """`switch` when both greenlets are `depth` calls deep."""
    # Started from up here: both stacks begin at the same place, and then each grows on its own. An
    # implementation that keeps both in one memory has to copy what overlaps, at every switch.
    there = greenlet(partial(descend, depth, switch_for_ever))
    there.switch()
    return descend(depth, partial(time_switches, there, loops))


def descend_in_c(depth: int, bottom: Callable[[], float | None]) -> float:
    """Call `bottom` below `depth` calls that go through C: `next` and `map` between each two."""
    if depth == 0:
        return bottom() or 0.0
    return next(map(descend_in_c, (depth - 1,), (bottom,)))


def descend_in_python(depth: int, bottom: Callable[[], float | None]) -> float:
    """Call `bottom` below `depth` calls that stay in the interpreter's loop."""
    if depth == 0:
        return bottom() or 0.0
    return descend_in_python(depth - 1, bottom)


# --- birth and death -------------------------------------------------------------------------


def create(loops: int) -> float:
    """Create a greenlet, run a function in it that returns at once, drop it."""

    def function() -> None:
        pass

    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        greenlet(function).switch()
    return perf_counter() - begin


def kill(loops: int) -> float:
    """Create a greenlet and start it, and drop it while it is suspended."""
    suspend = getcurrent().switch
    repeat = itertools.repeat(None, loops)
    begin = perf_counter()
    for _ in repeat:
        greenlet(suspend).switch()
    return perf_counter() - begin


class Workload(NamedTuple):
    run: Callable[[int], float]
    per_loop: int  # how often one loop does what is counted; a round trip is two switches


C_DEPTHS = (1, 3, 10, 30, 50, 100)
PYTHON_DEPTHS = (1, 10, 50, 200, 500)

WORKLOADS = {
    "call": Workload(call, 1),
    "send": Workload(send, 1),
    "asyncio": Workload(asyncio_switch, 2),
    "thread": Workload(thread_switch, 2),
    "switch": Workload(switch, 2),
    "switch_value": Workload(switch_value, 2),
    "switch_c_api": Workload(switch_c_api, 2),
    "traced": Workload(traced, 2),
    "context": Workload(context_variables, 2),
    "throw": Workload(throw, 1),
    "create": Workload(create, 1),
    "kill": Workload(kill, 1),
    **{f"deep_{depth}": Workload(partial(deep, descend_in_c, depth), 2) for depth in C_DEPTHS},
    **{
        f"frames_{depth}": Workload(partial(deep, descend_in_python, depth), 2)
        for depth in PYTHON_DEPTHS
    },
}


def pass_names_on(command: list[str], options: argparse.Namespace) -> None:
    """pyperf runs this program again as its worker, for the same benchmarks."""
    command.extend(options.names)


def main() -> None:
    import pyperf

    runner = pyperf.Runner(add_cmdline_args=pass_names_on)
    runner.argparser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    options = runner.parse_args()
    for name in options.names or WORKLOADS:
        workload = WORKLOADS[name]
        runner.bench_time_func(name, workload.run, inner_loops=workload.per_loop)


if __name__ == "__main__":
    main()
