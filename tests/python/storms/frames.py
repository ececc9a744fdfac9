"""Frames that other threads and other greenlets read while their greenlets run, wait and end.

Each greenlet keeps a list of the functions that it is in. Who reads its frames while it waits must
find those functions. Frames are kept beyond the end of their greenlets, and read then.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import random
import sys
import tempfile
import traceback
import types
from typing import Any

from greenlet import getcurrent, greenlet

from storms.common import (
    FREE_THREADED,
    LISTS_MAY_BE_SEEN,
    Crew,
    Member,
    Storm,
    act,
)

KEPT = 50  # frames


class Kept:
    """Frames that are kept."""

    def __init__(self) -> None:
        self.frames: list[Any] = [None] * KEPT

    def keep(self, chance: random.Random, frame: Any) -> None:
        self.frames[chance.randrange(KEPT)] = frame

    def pick(self, chance: random.Random) -> Any:
        return chance.choice(self.frames)


def one(crew: Crew, depth: int) -> None:
    local = object()
    descend(crew, depth)
    del local


def two(crew: Crew, depth: int) -> None:
    values = [descend(crew, depth) for _ in range(1)]
    del values


def three(crew: Crew, depth: int) -> None:
    for _ in generate(crew, depth):
        act()


def generate(crew: Crew, depth: int) -> Any:
    descend(crew, depth)
    yield depth


def four(crew: Crew, depth: int) -> None:
    sorted([2, 1], key=lambda number: (descend(crew, 0), number)[1])


FUNCTIONS = (one, two, three, four)
NAMES = {function.__name__ for function in FUNCTIONS}


def descend(crew: Crew, depth: int) -> object:
    """Call one of the functions, and let it be known."""
    me = getcurrent()
    assert isinstance(me, Member)
    act()
    if depth:
        function = crew.chance.choice(FUNCTIONS)
        path: list[str] = me.__dict__.setdefault("path", [])
        path.append(function.__name__)
        try:
            function(crew, depth - 1)
        finally:
            path.pop()
    return None


def start(crew: Crew) -> None:
    descend(crew, crew.chance.randrange(6))


def names(frame: types.FrameType | None) -> list[str]:
    found = []
    while frame is not None:
        if frame.f_code.co_name in NAMES:
            found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found[::-1]


def run(storm: Storm) -> None:
    kept = Kept()

    def check(crew: Crew) -> None:
        """Compare the frames of another greenlet of this thread with the functions it is in."""
        member = crew.pick()
        if member is getcurrent():
            return
        found = names(member.gr_frame)
        # It may wait between append() and the call, or in a callback.
        expected = member.__dict__.get("path", [])
        if found != expected:
            storm.fault(f"frames of {found}, calls of {expected}")
        storm.count("stacks compared")
        kept.keep(crew.chance, member.gr_frame)

    def read(crew: Crew) -> None:
        look_at(crew.chance.choice((kept.pick(crew.chance), crew.pick().gr_frame)))

    def look_at(frame: types.FrameType | None) -> None:
        if frame is None:
            return
        for each, line in traceback.walk_stack(frame):
            _ = each.f_code.co_qualname, line, each.f_lasti
            # Without a GIL, CPython's f_locals is not for frames that run in another thread.
            if not FREE_THREADED:
                repr(list(each.f_locals))
        traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)

    def clear(crew: Crew) -> None:
        frame = kept.pick(crew.chance)
        if frame is not None and not FREE_THREADED:
            try:
                frame.clear()
            except RuntimeError:
                pass  # it is executing, or suspended

    with tempfile.TemporaryFile() as file:

        def read_all(chance: random.Random) -> None:
            """A thread that reads all other threads and greenlets."""
            while storm.goes_on():
                step = chance.randrange(6)
                if step == 0:
                    for frame in sys._current_frames().values():
                        kept.keep(chance, frame)
                        if not FREE_THREADED:
                            look_at(frame)
                elif step == 1:
                    sys._current_exceptions()
                elif step == 2:
                    file.seek(0)
                    if not FREE_THREADED:  # it does not stop the other threads
                        faulthandler.dump_traceback(file, all_threads=True)
                elif step == 3 and LISTS_MAY_BE_SEEN:
                    found = [each for each in gc.get_objects() if isinstance(each, greenlet)]
                    for each in found[:20]:
                        if not FREE_THREADED:
                            look_at(each.gr_frame)
                        kept.keep(chance, each.gr_frame)
                    found.clear()
                elif step == 4 and LISTS_MAY_BE_SEEN:
                    gc.get_referrers(kept.pick(chance))
                elif step == 5:
                    gc.get_referents(kept.pick(chance))
                storm.count("looks from outside")

        tasks = (start, start, start, check, read, clear)

        readers = itertools.cycle((False, True, False))

        def work(chance: random.Random) -> None:
            if next(readers):
                read_all(chance)
            else:
                Crew(storm, chance, tasks).run()

        storm.in_threads(work, 3)
    kept.frames.clear()
    storm.judge()
