"""Trace functions and monitoring tools that come, go and act while greenlets wait in code they see.

In the quiet mode callbacks do not act, and a tool stays from the beginning to the end. It keeps the
calls that it has seen begin and not end, for each greenlet: when a greenlet waits, those must be
the frames that it has. (There is no collection: it would kill greenlets in the middle of callbacks,
and CPython shows tools nothing of that.) In the acting mode callbacks switch, throw and collect;
there CPython shows other tools nothing of what runs while a callback waits.
"""

from __future__ import annotations

import gc
import sys
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from greenlet import getcurrent, settrace

from storms.common import (
    FREE_THREADED,
    MONITORING_MAY_CHANGE,
    Crew,
    Member,
    Storm,
    act,
    acts,
    run_crews,
)

TOOLS = (3, 4)
STAYS = 5  # the tool that sees everything
HAS_MONITORING = sys.version_info >= (3, 12)


# --- what the greenlets run ----------------------------------------------------------------------


def calls(crew: Crew) -> int:
    return recurse(crew.chance.randrange(8))


def recurse(depth: int) -> int:
    act()
    return recurse(depth - 1) + 1 if depth else 0


def loops(crew: Crew) -> None:
    total = 0
    for number in range(crew.chance.randrange(5)):
        if number % 2:
            total += number
        else:
            act()
        total += len([acts(one) for one in (1, 2)])
    while total > 3:
        total -= 3
        act()


def raises(crew: Crew) -> None:
    try:
        try:
            act()
            {"a": 1}["key"]
        except KeyError:
            act()
            raise ValueError from None
        finally:
            act()
    except ValueError:
        act()


def numbers() -> Generator[int]:
    try:
        for number in range(3):
            act()
            yield number
            act()
    finally:
        act()


def nested_numbers() -> Generator[int]:
    yield from numbers()
    act()


def generators(crew: Crew) -> None:
    for number in nested_numbers():
        act()
        if number == crew.chance.randrange(4):
            break
    running = numbers()
    next(running)
    act()
    try:
        running.throw(KeyError)
    except KeyError:
        pass


class Waits:
    def __await__(self) -> Generator[None]:
        act()
        yield
        act()


async def async_numbers() -> AsyncIterator[int]:
    for number in range(2):
        await Waits()
        yield number


async def main() -> None:
    async for _ in async_numbers():
        await Waits()
        act()


def coroutines(crew: Crew) -> None:
    running = main()
    try:
        for _ in range(crew.chance.randrange(1, 9)):
            running.send(None)
            act()
    except StopIteration:
        return
    running.close()


class Callables:
    def __init__(self) -> None:
        act()

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        act()

    @property
    def value(self) -> int:
        act()
        return 1


def classes(crew: Crew) -> None:
    one = Callables()
    one(1, key=2)
    list(map(one, range(2)))
    sorted([3, 1, 2], key=lambda number: number + one.value)

    class Local(Callables):
        act()

    Local()(*range(3))


TASKS: tuple[Callable[[Crew], object], ...] = (
    calls,
    calls,
    loops,
    raises,
    generators,
    coroutines,
    classes,
)
CODES = [
    function.__code__
    for function in (calls, recurse, loops, raises, numbers, generators, main, classes, act)
]


# --- who looks at it -----------------------------------------------------------------------------


def toggle(storm: Storm, acts: bool) -> None:
    """Set or remove one thing."""
    chance = storm.chance
    callback = act_on_event if acts else ignore_event
    step = chance.randrange(8)
    if not MONITORING_MAY_CHANGE:
        return
    if step == 0 and sys.version_info >= (3, 12):
        threading.settrace_all_threads(chance.choice((None, trace_acting if acts else trace)))  # type: ignore[arg-type]
    elif step == 1 and sys.version_info >= (3, 12):
        threading.setprofile_all_threads(chance.choice((None, ignore_call)))
    elif sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        events = monitoring.events
        tool = chance.choice(TOOLS)
        chosen = chance.choice(
            (
                0,
                events.LINE,
                events.INSTRUCTION,
                events.PY_START | events.PY_RETURN | events.PY_YIELD | events.PY_RESUME,
                events.CALL | events.RAISE | events.EXCEPTION_HANDLED,
                events.BRANCH | events.JUMP | events.LINE | events.PY_UNWIND,
            )
        )
        if step < 5:
            monitoring.set_events(tool, chosen)
        elif step == 5:
            local = chosen & ~(events.RAISE | events.EXCEPTION_HANDLED | events.PY_UNWIND)
            monitoring.set_local_events(tool, chance.choice(CODES), local)
        elif step == 6:
            monitoring.restart_events()
        else:
            for event in (events.LINE, events.CALL, events.PY_START, events.PY_RETURN):
                monitoring.register_callback(tool, event, chance.choice((callback, disable)))
    storm.count("toggles")


def act_on_event(code: types.CodeType, *args: Any) -> None:
    if code.co_filename != __file__:
        return  # those who count what has ended
    if (crew := Crew.current()) is not None and crew.chance.randrange(20) == 0:
        act()


def ignore_event(*args: Any) -> None:
    pass


def disable(*args: Any) -> Any:
    return sys.monitoring.DISABLE  # type: ignore[attr-defined, unused-ignore]


def ignore_call(frame: types.FrameType, event: str, argument: Any) -> None:
    pass


def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
    # On free-threaded builds CPython stops the world for this, just before it calls the function:
    # another thread may remove the function then, and CPython calls a null pointer. So does 3.12.1
    # for each event of an opcode in a thread without a function (sys_trace_instruction_func()).
    frame.f_trace_opcodes = not FREE_THREADED and sys.version_info[:2] != (3, 12)
    return trace


def trace_acting(frame: types.FrameType, event: str, argument: Any) -> Any:
    act_on_event(frame.f_code)
    return trace_acting


def trace_switches(event: str, origin_and_target: Any) -> None:
    act_on_event(trace_switches.__code__)


class Calls:
    """The tool that stays: the calls of this file that have begun and not ended, by greenlet."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.codes = {code for code in codes_of(sys.modules[__name__]) if code not in self.own()}

    @staticmethod
    def own() -> set[types.CodeType]:
        return set(codes_of(Calls)) | {
            function.__code__
            for function in (toggle, act_on_event, ignore_event, disable, ignore_call, trace)
        }

    def begin(self, code: types.CodeType, *args: Any) -> None:
        if code in self.codes and isinstance(me := getcurrent(), Member):
            me.__dict__.setdefault("calls", []).append(code)

    def end(self, code: types.CodeType, *args: Any) -> None:
        if code in self.codes and isinstance(me := getcurrent(), Member):
            calls = me.__dict__.get("calls")
            if not calls or calls.pop() is not code:
                self.storm.fault(f"{code.co_qualname} has ended, and {calls} had begun")

    def check(self, crew: Crew) -> None:
        """Compare the frames of a greenlet that waits with what has begun in it."""
        member = crew.pick()
        frame = member.gr_frame if member is not getcurrent() else None
        frames = []
        while frame is not None:
            if frame.f_code in self.codes:
                frames.append(frame.f_code)
            frame = frame.f_back
        begun = member.__dict__.get("calls", [])
        if member is not getcurrent() and frames[::-1] != begun:
            self.storm.fault(
                f"frames of {[code.co_qualname for code in frames[::-1]]}, "
                f"calls of {[code.co_qualname for code in begun]}"
            )
        self.storm.count("stacks compared")

    def stay(self) -> None:
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            events = monitoring.events
            monitoring.use_tool_id(STAYS, "the one that stays")
            begins = (events.PY_START, events.PY_RESUME, events.PY_THROW)
            ends = (events.PY_RETURN, events.PY_YIELD, events.PY_UNWIND)
            chosen = 0
            for event in (*begins, *ends):
                callback = self.begin if event in begins else self.end
                monitoring.register_callback(STAYS, event, callback)
                chosen |= event
            monitoring.set_events(STAYS, chosen)


def codes_of(owner: Any) -> Iterator[types.CodeType]:
    """Return the code of the functions and methods of a module or class, and what is in it."""
    for value in list(vars(owner).values()):
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, types.FunctionType) and value.__module__ == __name__:
            yield from codes_in(value.__code__)
        elif isinstance(value, type) and value.__module__ == __name__ and value is not Calls:
            yield from codes_of(value)


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


def run(storm: Storm) -> None:
    acts = not HAS_MONITORING or bool(storm.chance.randrange(2))
    # Whoever is killed may leave a coroutine that it has not awaited yet.
    warnings.simplefilter("ignore", RuntimeWarning)
    calls = Calls(storm)
    if HAS_MONITORING:
        for tool in TOOLS:
            sys.monitoring.use_tool_id(tool, "storm")  # type: ignore[attr-defined, unused-ignore]
    if not acts:
        calls.stay()
    tasks = list(TASKS)

    def toggle_here(crew: Crew) -> None:
        step = crew.chance.randrange(4)
        if step == 0 and MONITORING_MAY_CHANGE:
            sys.settrace(crew.chance.choice((None, trace_acting if acts else trace)))
        elif step == 1 and MONITORING_MAY_CHANGE:
            sys.setprofile(crew.chance.choice((None, ignore_call)))
        elif step == 2:
            settrace(crew.chance.choice((None, trace_switches if acts else ignore_event)))
        else:
            toggle(storm, acts)

    tasks += [toggle_here] * 2
    if not acts and HAS_MONITORING:
        tasks += [calls.check] * 2
    print("callbacks act" if acts else "callbacks are quiet")
    if not acts:
        gc.disable()
    try:
        run_crews(storm, tasks, collects=acts)
    finally:
        gc.enable()
        sys.settrace(None)
        sys.setprofile(None)
        if HAS_MONITORING:
            monitoring = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
            for tool in (*TOOLS, *([] if acts else [STAYS])):
                monitoring.set_events(tool, 0)
                for code in CODES:
                    monitoring.set_local_events(tool, code, 0)
                monitoring.free_tool_id(tool)
