"""A storm: threads that come and go do everything with greenlets at random, for SECONDS.

    python stress_storm.py SECONDS [--seed N] [--threads N] [--stall SECONDS]
        [--without FEATURE...]

They create, start, switch, throw into and drop greenlets, their own and each other's; publish them
from finalizers and pick up what others have published; change parents; have `run` looked up by code
that acts; leave generators, coroutines, exception handlers and critical sections under way across
switches; toggle trace functions and sys.monitoring; collect, freeze and ask the collector for
objects; trim stacks and change their sizes. What a greenlet keeps for itself is checked after each
switch. In the end every greenlet that was started must have ended, except for schedulers that their
thread left (see KillCause), and no greenlet may be left in memory.

The program ends with status 1 if something was wrong. It ends with 3 and the traces of all threads
if a thread made no progress for long. Each thread draws its own random numbers. So a seed repeats
what each thread does, but not how the threads meet.
"""

from __future__ import annotations

import argparse
import builtins
import contextvars
import faulthandler
import functools
import gc
import itertools
import os
import random
import sys
import sysconfig
import threading
import time
import types
import weakref
from _thread import start_new_thread
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from greenlet import GreenletExit, error, getcurrent, greenlet, settrace, stacks

LIFE = (0.1, 1.5)  # how long a thread lives
PLACES = 40
OWN = 16  # greenlets that a thread holds for itself
DEPTH = 4  # actions within actions of one greenlet
SPARE_OBJECTS = 5_000  # objects that the interpreter and the storm make once and keep
SPARE_STACKS = 20
OBJECTS_OF_ONE = 500  # objects that a scheduler may hold that its thread left
SIZES = (None, stacks.MIN_SIZE, 1 << 20, 8 << 20, 64 << 20)  # of stacks

# Features that --without leaves out, to find the cause of a fault.
FEATURES = {
    "parents": "parents that other threads, or acting lookups of run, change",
    "monitoring": "trace functions and sys.monitoring",
    "sections": "switches within critical sections",
    "objects": "gc.get_objects(), gc.get_referrers(), gc.freeze()",
    "tracer": "greenlet.settrace()",
    "finalizers": "actions in finalizers",
    "generators": "generators, coroutines",
}


class Thrown(Exception):
    """What the storm throws."""


class Unruly(BaseException):
    """The same, but not an Exception."""


FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# What misuse raises.
EXPECTED = (error, Thrown, Unruly, AttributeError, TypeError, ValueError, RuntimeError)


class Record:
    """What the storm knows of one greenlet."""

    __slots__ = ("ended", "greenlet", "is_scheduler", "own_context", "started")

    def __init__(self) -> None:
        self.started = self.ended = self.is_scheduler = False
        self.own_context = True
        self.greenlet: Callable[[], Any] = lambda: None


places: list[Any] = [None] * PLACES  # greenlets for all threads
shared_list: list[Any] = []
shared_dict: dict[Any, Any] = {}
unended: set[Record] = set()
faults: list[str] = []
without: frozenset[str] = frozenset()
counters = {
    name: itertools.count()
    for name in ("actions", "started", "ended", "threads", "unraisable", "executing")
}
variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
workers: dict[int, Worker] = {}


def count(name: str) -> None:
    next(counters[name])


def fault(text: str) -> None:
    faults.append(text)
    if len(faults) < 20:
        print("FAULT:", text, file=sys.stderr, flush=True)


def has(feature: str) -> bool:
    return feature not in without


# Debug builds without a GIL assert that nothing else refers to a list that is being made. But
# gc.get_objects() in another thread does, and so does a collection that has found it to be garbage.
LISTS_MAY_BE_SEEN = not (FREE_THREADED and hasattr(sys, "gettotalrefcount"))


class Worker:
    """One thread of the storm, with its greenlets."""

    def __init__(self, seed: int, end: float) -> None:
        self.chance = random.Random(seed)
        self.end = end
        self.heartbeat = time.monotonic()
        self.own: list[Any] = [None] * OWN
        self.records: list[Record] = []
        self.actions = 0

    @staticmethod
    def current() -> Worker | None:
        return workers.get(threading.get_ident())

    def run(self) -> None:
        workers[threading.get_ident()] = self
        try:
            while time.monotonic() < self.end:
                act()
            self.end_schedulers()
        except EXPECTED:
            pass
        except GreenletExit:
            fault("the main greenlet of a thread got GreenletExit")
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            if self.chance.randrange(2):
                settrace(None)
            workers.pop(threading.get_ident(), None)
            self.records = []  # a scheduler that the thread leaves refers to this worker
            count("threads")

    def note(self, record: Record) -> None:
        self.records.append(record)
        if len(self.records) > 500:
            self.records = [old for old in self.records if not old.ended]

    def end_schedulers(self) -> None:
        """End the schedulers that the thread would leave, as far as they end."""
        for _ in range(20):
            left = [record for record in self.records if record.is_scheduler and not record.ended]
            if not left:
                return
            for g in owners(left):
                try:
                    g.throw(GreenletExit)
                except EXPECTED:
                    pass


def owners(records: list[Record]) -> list[Any]:
    """The greenlets of the records. A collection has cleared weak references to those it ended."""
    found = [record.greenlet() for record in records]
    if None in found and LISTS_MAY_BE_SEEN:
        for value in gc.get_objects():
            if isinstance(value, greenlet) and getattr(value, "record", None) in records:
                found.append(value)
        value = None
    return [g for g in found if g is not None]


# --- greenlets --------------------------------------------------------------------------------


class Deleted(greenlet):
    """Acts when it is finalized, and may resurrect itself."""

    def __del__(self) -> None:
        finalize(self)


class Slotted(greenlet):
    """Has slots that must keep their values until its last finally block."""

    __slots__ = ("one", "two")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.one = [self]
        self.two = object()


class SlottedAndDeleted(Slotted):
    __slots__ = ("three",)

    def __del__(self) -> None:
        finalize(self)


class ActsAtRun(greenlet):
    """The lookup of its `run` acts."""

    @property
    def run(self) -> Any:  # type: ignore[override]
        acting_lookup(self)
        return body


class ActsAtAttribute(greenlet):
    def __getattribute__(self, name: str) -> Any:
        if name == "run":
            acting_lookup(self)
            return body
        return super().__getattribute__(name)


CLASSES: tuple[Callable[..., Any], ...] = (
    greenlet,
    greenlet,
    greenlet,
    Deleted,
    Slotted,
    SlottedAndDeleted,
    ActsAtRun,
    ActsAtAttribute,
)


class Publisher:
    """Garbage that publishes a greenlet when it is finalized."""

    def __init__(self, g: Any) -> None:
        self.greenlet = g
        self.cycle = self

    def __del__(self) -> None:
        finalize(self.greenlet)


def finalize(g: Any) -> None:
    worker = Worker.current()
    if worker is None or not has("finalizers"):
        return
    step = worker.chance.randrange(6)
    if step == 0:
        places[worker.chance.randrange(PLACES)] = g
    elif step == 1:
        worker.own[worker.chance.randrange(OWN)] = g
    elif step == 2:
        act()
    elif step == 3 and g is not None:
        attempt(g.switch)


def acting_lookup(g: Any) -> None:
    worker = Worker.current()
    if worker is None:
        return
    step = worker.chance.randrange(10)
    if step == 0:
        raise AttributeError("run")
    if step == 1:
        raise Thrown("looking up run")
    if step < 4:
        act()
    elif step == 4:
        attempt(lambda: to_parent(None))
    elif step == 5 and has("parents"):
        attempt(lambda: change_parent(worker, g))
    elif step == 6:
        attempt(g.switch)
    elif step == 7:
        gc.collect(0)


def attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except EXPECTED:
        return None


def create(worker: Worker) -> Any:
    chance = worker.chance
    kind = chance.choice(CLASSES)
    acts = kind in (ActsAtRun, ActsAtAttribute)
    g = kind() if acts else kind(body)
    record = g.record = Record()
    record.greenlet = weakref.ref(g)
    if chance.randrange(4) == 0:
        g.cycle = [g, Publisher(g) if chance.randrange(4) == 0 else None]
    return g


def body(*args: Any, **kwargs: Any) -> Any:
    me = getcurrent()
    record = me.record  # type: ignore[attr-defined]
    count("started")
    if record.started:
        fault("a greenlet was started twice")
    record.started = True
    unended.add(record)
    if (worker := Worker.current()) is not None:
        worker.note(record)
    state = (threading.get_ident(), type(me), getattr(me, "two", None))
    value = object()
    variable.set(value)
    try:
        for _ in range(1000):
            try:
                wander()
            finally:
                now = (threading.get_ident(), type(me), getattr(me, "two", None))
                if getcurrent() is not me or state != now:
                    fault(f"it was {state}, and is {now}")
                if record.own_context and variable.get(None) is not value:
                    fault("the context of a greenlet has changed")
        return args
    finally:
        worker = Worker.current()
        try:
            if worker is not None and worker.chance.randrange(6) == 0:
                attempt(lambda: to_parent(None))
        finally:
            record.ended = True
            unended.discard(record)
            count("ended")


def to_parent(value: Any) -> Any:
    parent = getcurrent().parent
    return parent.switch(value) if parent is not None else None


def wander() -> None:
    """Wait for switches in one of many positions, and act in between."""
    worker = Worker.current()
    if worker is None or time.monotonic() >= worker.end:
        to_parent(None)  # its thread is ending
        raise GreenletExit
    worker.heartbeat = time.monotonic()
    step = worker.chance.randrange(40)
    if step == 0:
        raise Thrown
    if step == 1:
        raise GreenletExit
    if step < len(POSITIONS) + 2:
        POSITIONS[step - 2](worker)
    elif step < 28:
        act()
    else:
        attempt(lambda: to_parent(step))


# --- positions in which a greenlet waits ---------------------------------------------------------


def in_generator(worker: Worker) -> None:
    if not has("generators"):
        return
    generator = generate(worker.chance.randrange(1, 4))
    if worker.chance.randrange(3) == 0:
        next(generator)  # it is suspended, and dropped here
    elif LISTS_MAY_BE_SEEN:
        attempt(lambda: list(generator))


def generate(number: int) -> Generator[Any]:
    try:
        for i in range(number):
            attempt(lambda: to_parent(None))
            yield i
        if number > 1:
            yield from generate(number - 1)
    finally:
        attempt(act)


class Waiter:
    def __await__(self) -> Generator[Any, Any, Any]:
        attempt(lambda: to_parent(None))
        yield 1
        attempt(lambda: to_parent(None))


async def coroutine(number: int) -> None:
    await Waiter()
    async for _ in async_generate(number):
        await Waiter()


async def async_generate(number: int) -> AsyncIterator[int]:
    try:
        for i in range(number):
            await Waiter()
            yield i
    finally:
        attempt(lambda: to_parent(None))


def in_coroutine(worker: Worker) -> None:
    if not has("generators"):
        return
    running = coroutine(worker.chance.randrange(3))
    sends = worker.chance.randrange(1, 12)
    try:
        for _ in range(sends):
            running.send(None)
    except StopIteration:
        pass
    except EXPECTED:
        pass
    if worker.chance.randrange(2):
        attempt(running.close)


def in_handler(worker: Worker) -> None:
    """An exception handled here is the one handled after each switch."""
    try:
        raise KeyError(worker)
    except KeyError as handled:
        try:
            attempt(functools.partial(to_parent, handled))
            attempt(act)
        finally:
            if sys.exc_info()[1] is not handled and not isinstance(
                sys.exc_info()[1], BaseException
            ):
                fault("a handled exception was forgotten")
        if sys.exc_info()[1] is not handled:
            fault(f"{sys.exc_info()[1]!r} is handled, not {handled!r}")
        handled.__traceback__ = None


def in_depth(worker: Worker) -> None:
    deeper(worker.chance.randrange(1, 30))


def deeper(levels: int) -> Any:
    local = [levels]
    result = deeper(levels - 1) if levels else attempt(lambda: to_parent(local))
    if local != [levels]:
        fault("a local variable has changed")
    return result


class Key:
    """Switches when compared."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __lt__(self, other: Any) -> bool:
        attempt(lambda: to_parent(None))
        return self.number < getattr(other, "number", 0)

    def __eq__(self, other: object) -> bool:
        attempt(lambda: to_parent(None))
        return self is other

    def __hash__(self) -> int:
        return self.number & 1


def key_of(value: Any) -> int:
    attempt(lambda: to_parent(None))
    return hash(value)


def in_sort(worker: Worker) -> None:
    if not has("sections"):
        return
    numbers: Any = [Key(worker.chance.randrange(5)) for _ in range(3)]
    if worker.chance.randrange(2):
        numbers.sort()
    else:
        numbers.sort(key=key_of)
    if len(numbers) != 3:
        fault("a list has lost what was in it")


def in_shared_sort(worker: Worker) -> None:
    if not has("sections"):
        return
    if len(shared_list) > 8:
        shared_list.clear()
    shared_list.append(Key(worker.chance.randrange(5)))
    attempt(lambda: shared_list.sort(key=key_of if worker.chance.randrange(2) else None))


def in_dict(worker: Worker) -> None:
    if not has("sections"):
        return
    own = {Key(number): number for number in range(3)}
    attempt(lambda: own.pop(Key(worker.chance.randrange(3)), None))
    attempt(lambda: own.setdefault(Key(2), 1))
    attempt(lambda: {Key(number) for number in range(4)} & set(own))


def in_shared_dict(worker: Worker) -> None:
    if not has("sections"):
        return
    if len(shared_dict) > 8:
        shared_dict.clear()
    attempt(lambda: shared_dict.__setitem__(Key(worker.chance.randrange(5)), getcurrent()))
    attempt(lambda: shared_dict.pop(Key(1), None))


def in_comprehension(worker: Worker) -> None:
    if LISTS_MAY_BE_SEEN:
        attempt(lambda: [to_parent(number) for number in range(2)])
    attempt(lambda: dict(map(pair, range(2))))


def pair(number: int) -> tuple[int, Any]:
    return number, to_parent(number)


def in_class(worker: Worker) -> None:
    """Functions, classes and code that only this stack refers to: deferred references."""
    code = compile("def f(wait):\n class C:\n  wait()\n return wait(), C", "<storm>", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    function = names.pop("f")
    del code, names
    attempt(lambda: function(lambda: to_parent(None)))
    attempt(lambda: types.FunctionType(function.__code__, {"__builtins__": builtins})(lambda: None))


def in_finally(worker: Worker) -> None:
    try:
        attempt(lambda: to_parent(None))
    finally:
        attempt(lambda: to_parent(None))


def stubborn(worker: Worker) -> None:
    """Catches what ends it, once or twice, and goes on."""
    for _ in range(worker.chance.randrange(1, 3)):
        try:
            to_parent(None)
        except BaseException:
            attempt(lambda: to_parent(None))


POSITIONS: tuple[Callable[[Worker], None], ...] = (
    in_generator,
    in_coroutine,
    in_handler,
    in_depth,
    in_sort,
    in_shared_sort,
    in_dict,
    in_shared_dict,
    in_comprehension,
    in_class,
    in_finally,
    stubborn,
)


# --- actions -------------------------------------------------------------------------------------


def act() -> None:
    """Do one thing."""
    worker = Worker.current()
    if worker is None:
        return
    me: Any = getcurrent()
    depth = me.__dict__.get("depth", 0)
    if depth >= DEPTH:
        return
    me.depth = depth + 1
    worker.heartbeat = time.monotonic()
    count("actions")
    try:
        attempt(lambda: worker.chance.choice(ACTIONS)(worker))
    finally:
        me.depth = depth


def pick(worker: Worker) -> Any:
    if worker.chance.randrange(3) == 0:
        return worker.chance.choice(places)
    return worker.chance.choice(worker.own)


def put(worker: Worker, g: Any) -> None:
    if worker.chance.randrange(3) == 0:
        places[worker.chance.randrange(PLACES)] = g
    else:
        worker.own[worker.chance.randrange(OWN)] = g


def make(worker: Worker) -> None:
    put(worker, create(worker))


def make_and_start(worker: Worker) -> None:
    g = create(worker)
    put(worker, g)
    step = worker.chance.randrange(4)
    if step == 0:
        g.switch(worker, step, key=step)
    elif step == 1:
        g.switch(worker)
    elif step == 2:
        g.switch()
    else:
        g.throw(Thrown("before the start"))


def start_and_drop(worker: Worker) -> None:
    create(worker).switch()


def start_in_cycle(worker: Worker) -> None:
    g = create(worker)
    g.cycle = [g, Publisher(g)]
    g.switch()


def switch(worker: Worker) -> None:
    g = pick(worker)
    if g is None:
        make_and_start(worker)
    else:
        g.switch(worker.chance)


def throw(worker: Worker) -> None:
    g = pick(worker)
    if g is None:
        return
    chance = worker.chance
    step = chance.randrange(8)
    if step in (0, 6) and hasattr(g, "record") and g.record.ended and not g.dead:
        return  # it looks for an heir; an ancestor would get this, perhaps a main greenlet
    if step == 0:
        g.throw()
    elif step == 1:
        g.throw(Thrown)
    elif step == 2:
        g.throw(Thrown("instance"))
    elif step == 3:
        g.throw(Thrown, "value")
    elif step == 4:
        try:
            raise Thrown
        except Thrown as raised:
            g.throw(Thrown, raised, raised.__traceback__)
    elif step == 5:
        g.throw(Unruly)
    elif step == 6:
        g.throw(GreenletExit, GreenletExit("value"))
    else:
        g.throw(5)


def drop(worker: Worker) -> None:
    worker.own[worker.chance.randrange(OWN)] = None
    places[worker.chance.randrange(PLACES)] = None


def change_parent(worker: Worker, child: Any = None) -> None:
    """Set a parent. Without "parents", only of greenlets that no other thread has."""
    if not has("parents"):
        g = create(worker)
        g.parent = getcurrent()
        return
    child = child or pick(worker)
    parent = pick(worker) if worker.chance.randrange(4) else getcurrent()
    if child is None or parent is None:
        return
    if parent is not getcurrent():
        record = getattr(parent, "record", None)
        if record is not None:
            record.is_scheduler = True
    child.parent = parent


def change_context(worker: Worker) -> None:
    g = pick(worker)
    if g is None:
        return
    g.record.own_context = False
    g.gr_context = contextvars.copy_context() if worker.chance.randrange(2) else None


def look(worker: Worker) -> None:
    g = pick(worker)
    if g is not None:
        worker.chance.choice(LOOKS)(g)


def frames_of(g: Any) -> None:
    frame = g.gr_frame
    if frame is not None:
        traverse_frame(frame)


def traverse_frame(frame: types.FrameType) -> None:
    outer: types.FrameType | None = frame
    while outer is not None:
        _ = outer.f_code.co_name, outer.f_lineno
        outer = outer.f_back


LOOKS: tuple[Callable[[Any], object], ...] = (
    repr,
    bool,
    weakref.ref,
    gc.get_referents,
    lambda g: (g.dead, g.parent, g._stack_saved),
    frames_of,
    lambda g: g.gr_context,
    lambda g: g.run,
    lambda g: g.__dict__.update(attribute=1),
    lambda g: dir(g),
)


def collect(worker: Worker) -> None:
    step = worker.chance.randrange(60)
    if step == 0:
        gc.collect()
    elif step < 4:
        gc.collect(worker.chance.randrange(2))
    elif step == 4 and has("objects") and not FREE_THREADED:
        # Without a GIL a collection does not see uncounted references of frozen objects. CPython
        # itself crashes there with generators.
        gc.freeze()
        gc.unfreeze()
    elif step == 5 and has("objects") and LISTS_MAY_BE_SEEN:
        found = [value for value in gc.get_objects() if isinstance(value, greenlet)]
        if found:
            put_foreign(worker, worker.chance.choice(found))
    elif step == 6 and has("objects") and LISTS_MAY_BE_SEEN:
        gc.get_referrers(pick(worker))
    elif step == 7:
        thresholds = ((1, 0, 0), (50, 5, 5), (700, 10, 10), (2000, 10, 10))
        gc.set_threshold(*worker.chance.choice(thresholds))


def put_foreign(worker: Worker, g: Any) -> None:
    if hasattr(g, "record"):  # not a main greenlet
        put(worker, g)


def trim(worker: Worker) -> None:
    """Trim stacks and pools, or change sizes."""
    step = worker.chance.randrange(40)
    if step == 0:
        stacks.set_default_size(worker.chance.choice(SIZES))
    elif step == 1:
        g = pick(worker)
        if g is not None:
            stacks.set_size(g, worker.chance.choice(SIZES))
    else:
        stacks.trim()


def make_garbage(worker: Worker) -> None:
    Publisher(pick(worker))


def monitor(worker: Worker) -> None:
    if not has("monitoring"):
        return
    step = worker.chance.randrange(8)
    if step < 2:
        sys.settrace(trace if step else None)
    elif step < 4:
        sys.setprofile(profile if step == 3 else None)
    elif sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        tool = worker.chance.choice((3, 4))
        if monitoring.get_tool(tool) is None:
            monitoring.use_tool_id(tool, "storm")
        events = monitoring.events
        chosen = worker.chance.choice(
            (0, events.LINE, events.PY_START | events.PY_RETURN, events.CALL, events.BRANCH)
        )
        monitoring.register_callback(tool, events.LINE, on_event)
        monitoring.register_callback(tool, events.PY_START, on_event)
        monitoring.set_events(tool, chosen)


def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
    return trace


def profile(frame: types.FrameType, event: str, argument: Any) -> None:
    pass


def on_event(*args: Any) -> Any:
    return None


def set_tracer(worker: Worker) -> None:
    if has("tracer"):
        settrace(worker.chance.choice((None, None, tracer)))


def tracer(event: str, origin_and_target: tuple[Any, Any]) -> None:
    if event not in ("switch", "throw") or getcurrent() is not origin_and_target[1]:
        fault(f"the tracer got {event}, {origin_and_target}")
    worker = Worker.current()
    if worker is not None and worker.chance.randrange(500) == 0:
        raise Thrown


ACTIONS: tuple[Callable[[Worker], None], ...] = (
    make,
    make,
    make_and_start,
    make_and_start,
    make_and_start,
    start_and_drop,
    start_in_cycle,
    switch,
    switch,
    switch,
    switch,
    switch,
    throw,
    drop,
    drop,
    change_parent,
    change_context,
    look,
    look,
    collect,
    collect,
    trim,
    make_garbage,
    monitor,
    set_tracer,
)


# --- the whole -----------------------------------------------------------------------------------


def note_unraisable(report: Any) -> None:
    count("unraisable")
    raised = report.exc_value
    text = f"{report.exc_type.__name__}: {raised} in {report.object!r}"
    if not issubclass(report.exc_type, (*EXPECTED, GreenletExit)):
        fault(text)
    elif "already executing" in str(raised):
        # Where a greenlet that a finalizer has published goes on with its generators while the
        # collection still comes to them: so it is for generators that a finalizer publishes.
        count("executing")


def watch(worker: Worker, alive: Callable[[], bool], stall: float) -> None:
    if time.monotonic() - worker.heartbeat > stall and alive():
        print(f"FAULT: a thread made no progress for {stall} s", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(3)


def start_thread(
    number: int, chance: random.Random, end: float
) -> tuple[Worker, Callable[[], bool]]:
    worker = Worker(chance.randrange(1 << 30), min(end, time.monotonic() + chance.uniform(*LIFE)))
    if number % 4:
        thread = threading.Thread(target=worker.run)
        thread.start()
        return worker, thread.is_alive
    done = threading.Event()

    def run() -> None:
        try:
            worker.run()
        finally:
            done.set()

    start_new_thread(run, ())
    return worker, lambda: not done.is_set()


def storm(seconds: float, seed: int, threads: int, stall: float) -> None:
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    running: list[tuple[Worker, Callable[[], bool]]] = []
    numbers = itertools.count(1)
    while time.monotonic() < end or running:
        faulthandler.dump_traceback_later(
            stall * 2, exit=True
        )  # for the case that not even this thread runs
        running = [(worker, alive) for worker, alive in running if alive()]
        while len(running) < threads and time.monotonic() < end:
            running.append(start_thread(next(numbers), chance, end))
        for worker, alive in running:
            watch(worker, alive, stall)
        time.sleep(0.02)


def calm() -> None:
    """Wait until nothing of the storm is left."""
    gc.set_threshold(700, 10, 10)
    if sys.version_info >= (3, 12):
        for tool in (3, 4):
            sys.monitoring.free_tool_id(tool)
    places[:] = [None] * PLACES
    shared_list.clear()
    shared_dict.clear()
    for _ in range(100):
        getcurrent()
        gc.collect()
        if not [record for record in unended if not record.is_scheduler] and len(left()) == 0:
            return
        time.sleep(0.01)


def left() -> list[Any]:
    return [
        value
        for value in gc.get_objects()
        if isinstance(value, greenlet) and value.parent is not None
    ]


def judge(objects_before: int) -> None:
    schedulers = [record for record in unended if record.is_scheduler]
    lost = [record.greenlet() for record in unended if not record.is_scheduler]
    if lost:
        fault(f"{len(lost)} greenlets have not ended: {lost[:5]}")
    # The thread may also have left a scheduler after its body, in the lookup of an heir's run. It
    # counts as ended, but still holds a stack and what its frames refer to.
    in_use = stacks.statistics().in_use
    if in_use > len(schedulers) + SPARE_STACKS:
        fault(f"{in_use} stacks are in use by {len(schedulers)} greenlets")
    if in_use == 0 and (objects := left()):
        fault(f"{len(objects)} greenlets are left in memory: {objects[:5]}")
    growth = len(gc.get_objects()) - objects_before
    if growth > SPARE_OBJECTS + OBJECTS_OF_ONE * in_use:
        fault(f"{growth} objects are left in memory")
    numbers = {name: next(counter) for name, counter in counters.items()}
    print(numbers, f"{len(schedulers)} schedulers were left", flush=True)


def main() -> None:
    global without
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--stall", type=float, default=120.0)
    parser.add_argument("--without", nargs="*", default=[], choices=list(FEATURES))
    options = parser.parse_args()
    without = frozenset(options.without)
    print(f"seed {options.seed}", flush=True)
    faulthandler.enable()
    sys.unraisablehook = note_unraisable
    objects_before = len(gc.get_objects())
    storm(options.seconds, options.seed, options.threads, options.stall)
    calm()
    judge(objects_before)
    faulthandler.cancel_dump_traceback_later()
    if faults:
        print(f"{len(faults)} faults", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
