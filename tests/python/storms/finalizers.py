"""Finalizers and weakref callbacks that publish greenlets and themselves, switch, kill and start.

What a finalizer has published may be running, waiting or dead, and belong to any thread. Whoever
finds it uses it. In the end each greenlet must have ended and each object been finalized.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent

from storms.common import LISTS_MAY_BE_SEEN, Crew, Member, Storm, act, run_crews

PLACES = 16


class Published:
    """What finalizers have published, for all threads."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.places: list[Any] = [None] * PLACES

    def put(self, value: object) -> None:
        crew = Crew.current()
        if crew is not None and self.storm.goes_on():
            self.places[crew.chance.randrange(PLACES)] = value
            self.storm.count("publications")


class Finalized:
    """Publishes what it refers to when it is finalized, or itself, and acts before and after."""

    def __init__(self, published: Published, value: object) -> None:
        self.published = published
        self.value = value
        self.cycle: object = self
        published.storm.count("objects made")

    def __del__(self) -> None:
        published = self.published
        published.storm.count("objects finalized")
        act()
        crew = Crew.current()
        if crew is not None:
            published.put(crew.chance.choice((self.value, self, None)))
        act()


class FinalizedMember(Member):
    """A greenlet whose class has a finalizer. It runs before the greenlet is killed."""

    published: Published

    def __del__(self) -> None:
        self.published.storm.count("greenlets finalized")
        if self.published.storm.goes_on():
            self.published.put(self)
        act()


def run(storm: Storm) -> None:
    published = Published(storm)
    FinalizedMember.published = published

    def in_cycle(crew: Crew) -> None:
        Finalized(published, crew.pick())

    def own_frame(crew: Crew) -> None:
        """Only the frames of this greenlet refer to it; so a collection finds it with them."""
        local = Finalized(published, getcurrent())
        act()
        local.value = [local, act]
        act()

    def without_cycle(crew: Crew) -> None:
        Finalized(published, crew.pick()).cycle = None

    def callback(value: object, reference: object) -> None:
        published.put(value)
        act()

    def weak(crew: Crew) -> None:
        target = Finalized(published, None)
        target.value = weakref.ref(target)
        references = [weakref.ref(target, functools.partial(callback, crew.pick()))]
        weakref.finalize(target, callback, references, None).atexit = False
        del target
        act()

    def generator(crew: Crew) -> None:
        def run_generator() -> Any:
            try:
                act()
                yield
            finally:
                act()
                published.put(getcurrent())

        running = run_generator()
        next(running)
        cycle: list[Any] = [running]
        cycle.append(cycle)
        del running
        act()

    def finalized_member(crew: Crew) -> None:
        member = FinalizedMember(crew.body, crew.hub)
        member.crew = crew
        member.itself = member  # type: ignore[attr-defined]
        crew.members.append(member)

    def use(crew: Crew) -> None:
        """Use what was published: it may belong to another thread."""
        value = crew.chance.choice(published.places)
        step = crew.chance.randrange(6)
        if isinstance(value, Member):
            if step < 3 and value is not getcurrent():
                value.switch()
            elif step == 3 and value is not getcurrent():
                value.throw(GreenletExit)
            else:
                _ = value.dead, value.gr_frame, repr(value)
        elif isinstance(value, Finalized) and step == 0:
            value.value = getcurrent()
        published.places[crew.chance.randrange(PLACES)] = None

    def look(crew: Crew) -> None:
        if LISTS_MAY_BE_SEEN and crew.chance.randrange(10) == 0:
            found = [value for value in gc.get_objects() if isinstance(value, Finalized)]
            published.put(crew.chance.choice(found) if found else None)

    def careful(task: Callable[[Crew], None]) -> Callable[[Crew], None]:
        @functools.wraps(task)
        def run_task(crew: Crew) -> None:
            try:
                task(crew)
            except Exception as raised:  # of another thread, dead, unstarted
                if type(raised).__name__ not in ("error", "Thrown", "ValueError"):
                    raise

        return run_task

    tasks = (in_cycle, own_frame, without_cycle, weak, generator, finalized_member, use, use, look)
    run_crews(storm, [careful(task) for task in tasks])
    published.places.clear()
    storm.judge()
    names = ("objects made", "objects finalized")  # none, if the machine was busy with other things
    made, ended = (next(storm.counters.get(name, iter((0,)))) for name in names)
    if made != ended:
        storm.fault(f"{made} objects were made, {ended} finalized")
