"""What the storms share: chance, a time limit, crews of greenlets in threads, and the final count.

A crew is the greenlets of one thread. They run the tasks of a storm. Python code that a task makes
CPython call (a comparison, a callback, a finalizer) calls act(). act() switches to another greenlet
of the crew or to its hub, kills or drops one, starts one, or collects. So each operation of a task
is left in the middle, other greenlets do the same with the same objects, and it goes on later, or
ends by an exception.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import os
import random
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

from greenlet import GreenletExit, error, getcurrent, greenlet, stacks

T = TypeVar("T")

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
THREAD_SANITIZER = "--with-thread-sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
# Debug builds without a GIL assert that nothing else refers to a list that is being made. But
# gc.get_objects() in another thread does.
LISTS_MAY_BE_SEEN = not (FREE_THREADED and DEBUG_BUILD)
# Debug builds before 3.15 assert that frames know the trace functions of the moment.
MONITORING_MAY_CHANGE = not (DEBUG_BUILD and (3, 12) <= sys.version_info < (3, 15))
MEMBERS = 12  # greenlets of a crew
DEPTH = 6  # acts within acts of one greenlet
SHARE_OF_ACTS = 3  # of so many calls of act() one acts


class Thrown(Exception):
    """What greenlets of a crew throw into each other."""


EXPECTED = (Thrown, GreenletExit, error)


class Storm:
    """One run of one storm in this process."""

    def __init__(self, seed: int, seconds: float, stall: float) -> None:
        self.chance = random.Random(seed)
        self.end = time.monotonic() + seconds
        self.stall = stall
        self.faults: list[str] = []
        self.counters: dict[str, itertools.count[int]] = {}
        self.unended: set[Record] = set()
        self.heartbeat = time.monotonic()
        self.in_thread = False  # what runs does so in threads of their own

    def count(self, name: str) -> None:
        next(self.counters.setdefault(name, itertools.count()))

    def goes_on(self) -> bool:
        self.heartbeat = time.monotonic()
        return self.heartbeat < self.end

    def fault(self, text: str) -> None:
        self.faults.append(text)
        if len(self.faults) < 10:
            print("FAULT:", text, file=sys.stderr, flush=True)

    def note_unraisable(self, report: Any) -> None:
        """sys.unraisablehook: the exceptions of the storm also come into finalizers."""
        # A greenlet that a collection has found may go on, and run a generator that the collection
        # comes to later. So it is for a generator that a finalizer publishes.
        if issubclass(report.exc_type, EXPECTED) or "already executing" in str(report.exc_value):
            self.count("unraisable")
        else:
            self.fault(f"{report.exc_type.__name__}: {report.exc_value} in {report.object!r}")

    def in_threads(self, function: Callable[[random.Random], object], count: int = 3) -> None:
        """Call the function in threads, and wait for them."""

        def call(seed: int) -> None:
            try:
                function(random.Random(seed))
            except BaseException as raised:
                self.fault(f"a thread ended with {raised!r}")
                raise

        self.in_thread = True
        seeds = [self.chance.randrange(1 << 30) for _ in range(count)]
        threads = [threading.Thread(target=call, args=[seed]) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                self.watch()

    def watch(self) -> None:
        """End the process, with the traces of all threads, if nothing happens any more."""
        if time.monotonic() - self.heartbeat > self.stall:
            print(f"FAULT: no progress for {self.stall} s", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
            os._exit(3)

    def judge(self, left: int = 0) -> None:
        """Check that no greenlet and no region is left, but for so many."""
        for _ in range(50):
            getcurrent()
            gc.collect()
            if stacks.statistics().in_use <= left and len(self.unended) <= left:
                break
            time.sleep(0.01)
        if len(self.unended) > left:
            lost = [record.greenlet() or record.text for record in self.unended][:5]
            self.fault(f"{len(self.unended)} greenlets have not ended: {lost}")
        if (in_use := stacks.statistics().in_use) > left:
            self.fault(f"{in_use} regions are in use")

    def numbers(self) -> str:
        """Return what was done."""
        numbers = {name: next(counter) for name, counter in self.counters.items()}
        return ", ".join(f"{number:,} {name}" for name, number in sorted(numbers.items()))


class Record:
    """What is kept of a greenlet that has started."""

    def __init__(self, member: Member) -> None:
        self.text = repr(member)
        self.greenlet = weakref.ref(member)


class Member(greenlet):
    """A greenlet of a crew."""

    depth = 0
    task = ""
    crew: Crew


Task: TypeAlias = Callable[["Crew"], object]


class Crew:
    """The greenlets of one thread."""

    of_threads: ClassVar[dict[int, Crew]] = {}

    def __init__(
        self, storm: Storm, chance: random.Random, tasks: Sequence[Task], collects: bool = True
    ) -> None:
        self.storm = storm
        self.chance = chance
        self.tasks = tasks
        self.acts = ACTS if collects else [each for each in ACTS if each is not collect]
        self.members: list[Member] = []
        self.hub = getcurrent()
        self.own: Any = None  # what a storm keeps for the crew

    @staticmethod
    def current() -> Crew | None:
        return Crew.of_threads.get(threading.get_ident())

    def run(self) -> None:
        """Resume members at random until the time is over; then let them end."""
        self.of_threads[threading.get_ident()] = self
        try:
            while self.storm.goes_on():
                self.resume(self.pick())
            for _ in range(100):
                self.members = [member for member in self.members if not member.dead]
                for member in self.members:
                    self.resume(member)
        finally:
            del self.of_threads[threading.get_ident()]
        if self.members:
            self.storm.fault(f"a crew has not ended: {self.members}")

    def resume(self, member: Member) -> None:
        try:
            member.switch()
        except EXPECTED:
            pass

    def pick(self) -> Member:
        """Return a member at random, perhaps a new one."""
        living = [member for member in self.members if not member.dead]
        if not living or (len(living) < MEMBERS and self.chance.randrange(3) == 0):
            living.append(self.create())  # which may collect, and so come here again
        self.members = living
        return self.chance.choice(living)

    def create(self) -> Member:
        member = Member(self.body, self.hub)
        member.crew = self
        if self.chance.randrange(2):
            member.itself = member  # type: ignore[attr-defined]
        return member

    def body(self) -> None:
        me = getcurrent()
        assert isinstance(me, Member)
        record = Record(me)
        self.storm.unended.add(record)
        self.storm.count("greenlets")
        try:
            while self.storm.goes_on():
                task = self.chance.choice(self.tasks)
                me.task = getattr(task, "__name__", "task")
                self.storm.count("tasks")
                try:
                    task(self)
                except Thrown:
                    pass
                act()
        finally:
            self.storm.unended.discard(record)


def act() -> None:
    """Act as a member of the crew, often. Ends as the greenlet that resumes the caller wants."""
    crew = Crew.current()
    if crew is None or crew.chance.randrange(SHARE_OF_ACTS) or not crew.storm.goes_on():
        return
    me = getcurrent()
    if not isinstance(me, Member) or me.depth >= DEPTH:
        return
    me.depth += 1
    crew.storm.count("acts")
    try:
        crew.chance.choice(crew.acts)(crew, me)
    finally:
        me.depth -= 1


def acts(value: T) -> T:
    """Act, and return the value."""
    act()
    return value


def to_hub(crew: Crew, me: Member) -> None:
    crew.hub.switch()


def to_member(crew: Crew, me: Member) -> None:
    other = crew.pick()
    if other is not me:
        other.switch()


def throw(crew: Crew, me: Member) -> None:
    other = crew.pick()
    if other is not me and not other.dead:
        other.throw(crew.chance.choice((Thrown, Thrown("instance"), GreenletExit)))


def throw_at_myself(crew: Crew, me: Member) -> None:
    raise Thrown


def drop(crew: Crew, me: Member) -> None:
    """Forget a member. It is killed at once, or by a collection if it refers to itself."""
    other = crew.pick()
    if other is not me:
        crew.members = [member for member in crew.members if member is not other]


def collect(crew: Crew, me: Member) -> None:
    step = crew.chance.randrange(20)
    if step == 0:
        gc.collect()
    elif step < 8:
        gc.collect(0)
    elif step == 8:
        stacks.trim()
    elif step == 9:
        gc.set_threshold(*crew.chance.choice(((20, 5, 5), (700, 10, 10), (2000, 10, 10))))


ACTS: tuple[Callable[[Crew, Member], None], ...] = (
    to_hub,
    to_hub,
    to_hub,
    to_hub,
    to_member,
    to_member,
    to_member,
    throw,
    throw_at_myself,
    drop,
    collect,
)


def run_crews(storm: Storm, tasks: Sequence[Task], collects: bool = True) -> None:
    """Let a crew in each of three threads run the tasks, and judge what is left."""
    storm.in_threads(lambda chance: Crew(storm, chance, tasks, collects).run())
    gc.set_threshold(700, 10, 10)
    storm.judge()
