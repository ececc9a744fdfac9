"""A program that does everything with greenlets that threads share, at random, for SECONDS.

Four threads that live and others that come and go share a few dozen greenlets: they create, start,
switch, throw into, kill and drop them, change their parents, run and contexts, look at them and
collect. It ends with an error if a started greenlet did not end with its thread, or if memory grew
after a warm-up. A greenlet that became a parent is a scheduler, and the end of its thread would
leave it as it is. So the threads end those themselves; only a few remain, and are accounted for.
"""

from __future__ import annotations

import argparse
import contextvars
import faulthandler
import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greenlet import GreenletExit, error, getcurrent, greenlet, stacks

WORKERS = 4
PLACES = 48
ACTIONS_OF_VISITOR = 400
WARM_UP = 0.4  # of the whole time
GROWTH = 1.15
SPARE_KIB = 24 * 1024  # allocators keep some of what threads gave back
# What misuse raises, and what the bodies below throw.
EXPECTED = (error, KeyError, ValueError, AttributeError, TypeError, RuntimeError)


class Record:
    """What is known of one greenlet."""

    __slots__ = ("greenlet", "is_scheduler", "thread")

    def __init__(self, g: Any) -> None:
        self.is_scheduler = False
        self.thread = 0
        self.greenlet = weakref.ref(g)


started = itertools.count()
finished = itertools.count()
unfinished: set[Record] = set()
places: list[Any] = [None] * PLACES
actions_done = itertools.count()
seeds = random.Random()
end_of_all = [0.0]  # then every greenlet returns


def draw() -> int:
    return seeds.randrange(1 << 30)


class Subclass(greenlet):
    """Has attributes in its dict, and a finalizer."""

    deleted = itertools.count()

    def __del__(self) -> None:
        next(self.deleted)


def body(*args: Any) -> Any:
    record: Record = getcurrent().record  # type: ignore[attr-defined]
    next(started)
    record.thread = threading.get_ident()
    unfinished.add(record)
    try:
        return wander(random.Random(draw()), depth=0)
    finally:
        unfinished.discard(record)
        next(finished)


def wander(chance: random.Random, depth: int) -> Any:
    """Wait for switches, and act in between; sometimes deep in the stack, or in C callers."""
    local = [object(), depth]
    while time.monotonic() < end_of_all[0]:
        step = chance.randrange(24)
        if step == 0:
            return local
        if step == 1:
            raise KeyError(depth)
        if step == 2 and depth < 8:
            return wander(chance, depth + 1)
        if step == 3:
            [3, 1, 2].sort(key=to_parent)
        elif step == 4:
            local = [*(to_parent(number) for number in range(2)), depth]
        elif step < 8:
            act(chance)
        else:
            to_parent(local)
    return local


def to_parent(value: Any = None) -> Any:
    parent = getcurrent().parent
    if parent is not None:
        try:
            parent.switch(value)
        except EXPECTED:
            pass
    return value


def create(chance: random.Random) -> Any:
    g: Any = (Subclass if chance.randrange(2) else greenlet)(body)
    g.record = Record(g)
    if chance.randrange(4) == 0:
        g.gr_context = contextvars.copy_context()
    if chance.randrange(8) == 0:
        g.cycle = [g]
    return g


def create_and_start(chance: random.Random, g: Any, place: int) -> None:
    g = create(chance)
    g.switch()
    places[place] = g


def create_only(chance: random.Random, g: Any, place: int) -> None:
    places[place] = create(chance)


def drop(chance: random.Random, g: Any, place: int) -> None:
    places[place] = None


def switch(chance: random.Random, g: Any, place: int) -> None:
    g.switch(place)


def throw(chance: random.Random, g: Any, place: int) -> None:
    g.throw(chance.choice((GreenletExit, KeyError, ValueError("thrown"))))


def change_parent(chance: random.Random, g: Any, place: int) -> None:
    parent: Any = chance.choice(places) or getcurrent()
    if parent is not getcurrent():
        parent.record.is_scheduler = True
    g.parent = parent


def change_run(chance: random.Random, g: Any, place: int) -> None:
    g.run = body


def change_context(chance: random.Random, g: Any, place: int) -> None:
    g.gr_context = contextvars.copy_context() if chance.randrange(2) else None


def look(chance: random.Random, g: Any, place: int) -> None:
    chance.choice(LOOKS)(g)


def collect(chance: random.Random, g: Any, place: int) -> None:
    if chance.randrange(100) == 0:
        gc.collect()


LOOKS: tuple[Callable[[Any], object], ...] = (
    repr,
    bool,
    weakref.ref,
    gc.get_referents,
    lambda g: (g.dead, g.parent, g._stack_saved),
    lambda g: g.gr_frame,
    lambda g: g.gr_context,
    lambda g: g.run,
    lambda g: g.__dict__.update(attribute=1),
    lambda g: setattr(g, "__dict__", {"record": g.record}),
)

ACTIONS: tuple[Callable[[random.Random, Any, int], None], ...] = (
    create_and_start,
    create_and_start,
    create_only,
    drop,
    switch,
    switch,
    switch,
    throw,
    change_parent,
    change_run,
    change_context,
    look,
    look,
    collect,
)


def act(chance: random.Random) -> None:
    place = chance.randrange(PLACES)
    g = places[place]
    action = chance.choice(ACTIONS)
    if g is None:
        action = create_and_start
    try:
        action(chance, g, place)
    except EXPECTED:
        pass
    next(actions_done)


def work(seed: int, end: float) -> None:
    chance = random.Random(seed)
    while time.monotonic() < end:
        act(chance)
    end_schedulers()


def end_schedulers() -> None:
    """End the schedulers of this thread, which it would leave, as far as they end."""
    for _ in range(20):
        mine = [record for record in list(unfinished) if record.thread == threading.get_ident()]
        for record in mine:
            g = record.greenlet()
            if g is not None and record.is_scheduler:
                try:
                    g.throw()
                except EXPECTED:
                    pass


def visit(seed: int) -> None:
    """Act for a while; then end while other threads hold or drop greenlets of this thread."""
    chance = random.Random(seed)
    for _ in range(ACTIONS_OF_VISITOR):
        act(chance)
    end_schedulers()


def receive_visitors(end: float) -> None:
    while time.monotonic() < end:
        visitor = threading.Thread(target=visit, args=(draw(),))
        visitor.start()
        visitor.join()


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--stall", type=float, default=120.0)
    options = parser.parse_args()
    seconds = options.seconds
    seeds.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    faulthandler.dump_traceback_later(seconds + options.stall, exit=True)
    begin = time.monotonic()
    end = end_of_all[0] = begin + seconds
    threads = [threading.Thread(target=work, args=(draw(), end)) for _ in range(WORKERS)]
    threads.append(threading.Thread(target=receive_visitors, args=(end,)))
    for thread in threads:
        thread.start()
    early, late = 0, 0
    while time.monotonic() < end:
        time.sleep(min(1.0, seconds / 100))
        now = time.monotonic()
        if now < begin + seconds * WARM_UP or not early:  # the machine may be busy
            early = max(early, resident_kib())
        elif now > end - seconds * WARM_UP:
            late = max(late, resident_kib())
    for thread in threads:
        thread.join()
    places.clear()
    gc.collect()
    number, ended = next(started), next(finished)
    print(f"{next(actions_done)} actions, {number} greenlets started, {ended} ended")
    print(f"{len(unfinished)} have not: schedulers that their threads left")
    print(f"resident: at most {early} KiB in the warm-up, {late} KiB in the end")
    print(stacks.statistics())
    lost = [record for record in unfinished if not record.is_scheduler]
    assert not lost, f"{len(lost)} greenlets were left behind"
    assert number == ended + len(unfinished)
    in_use = stacks.statistics().in_use
    assert in_use == len(unfinished), f"{in_use} stacks are in use"
    assert late < early * GROWTH + SPARE_KIB, "memory grows"


if __name__ == "__main__":
    main()
