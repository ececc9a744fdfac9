"""Forks while greenlets wait and run: in greenlets, in threads, of forks, and to run programs.

A child checks what it has: the greenlets of the thread that forked wait as they did and can be
resumed, killed and dropped; those of other threads are dead, and their regions are still there. It
starts greenlets of its own, perhaps threads, and ends in one of several ways.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

from greenlet import getcurrent, greenlet

from storms.common import THREAD_SANITIZER, Crew, Storm, act, acts

WELL = 17  # the status of a child that found all as it should be
PATIENCE = 90  # seconds that a child may take
DEPTH = 3  # of forks


class Family:
    """Greenlets that wait in this thread, and what each of them has to give."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.members: list[Any] = []
        for number in range(chance.randrange(1, 8)):
            g = greenlet(self.body)
            g.switch(number)
            self.members.append(g)

    def body(self, value: Any) -> Any:
        me: Any = getcurrent()
        try:
            raise KeyError(value)
        except KeyError as handled:
            received = sorted([2, 1], key=lambda number: (me.parent.switch(value), number)[1])
            assert sys.exc_info()[1] is handled and received == [1, 2]
        return value

    def resume(self) -> None:
        """Let all go on to their ends: two switches each."""
        for number, g in enumerate(self.members):
            g.parent = getcurrent()
            step = self.chance.randrange(5)
            if step == 0:
                g.throw()
                assert g.dead
            elif step == 1 and sys.version_info >= (3, 14):
                # Before 3.14 no collection sees what waits behind a C function.
                g.itself = g
            else:
                assert g.switch() == number
                assert g.switch() == number
                assert g.dead
        self.members.clear()
        gc.collect()


def use_greenlets(chance: random.Random) -> None:
    for _ in range(3):
        Family(chance).resume()


def be_child(storm: Storm, chance: random.Random, family: Family, foreign: Any, depth: int) -> None:
    """Check everything in a child; ends the process."""
    signal.alarm(PATIENCE)
    # New ones: what threads use together may stay locked in the child for ever. See
    # tests/cpython_faults/fork_while_a_lock_is_handed_over.py.
    storm.faults, storm.counters = [], {}
    if foreign is not None:
        assert foreign.dead
        try:
            foreign.throw()
        except BaseException as raised:
            assert type(raised).__name__ in ("GreenletExit", "error"), raised
    assert threading.active_count() == 1, threading.enumerate()
    use_greenlets(chance)
    family.resume()
    # ThreadSanitizer knows no threads in the child of a process with threads.
    if chance.randrange(3) == 0 and not THREAD_SANITIZER:
        thread = threading.Thread(target=use_greenlets, args=[chance])
        thread.start()
        thread.join()
    if depth and chance.randrange(3) == 0:
        fork(storm, chance, foreign, depth - 1)
    assert not storm.faults, storm.faults
    leave(chance, exits_from_here=not storm.in_thread)


def leave(chance: random.Random, exits_from_here: bool) -> None:
    step = chance.randrange(5)
    if step < 2 and not exits_from_here:
        pass  # sys.exit() would end the thread, and with it the process, with status 0
    elif step == 0:
        waiting = greenlet(lambda: getcurrent().parent.switch())  # type: ignore[union-attr]
        waiting.switch()
        sys.exit(WELL)
    elif step == 1:
        greenlet(sys.exit).switch(WELL)
    elif step == 2:
        code = f"import sys; sys.exit({WELL})"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
    elif step == 3:
        greenlet(os._exit).switch(WELL)
    os._exit(WELL)


def wait_for(storm: Storm, pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != WELL:
        storm.fault(f"a child has ended with {code}")
    storm.count("forks")


def fork(storm: Storm, chance: random.Random, foreign: Any, depth: int = DEPTH) -> None:
    """Fork here, perhaps in a greenlet, and wait for the child."""
    family = Family(chance)

    def fork_here() -> None:
        pid = os.fork()
        if pid:
            return wait_for(storm, pid)
        try:
            be_child(storm, chance, family, foreign, depth)
        except SystemExit:
            raise  # to the end of the program, through the greenlets
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    if chance.randrange(2):
        greenlet(fork_here).switch()
    else:
        fork_here()
    family.resume()


def spawn(storm: Storm, chance: random.Random) -> None:
    """Run a program from a greenlet."""
    code = f"import sys; sys.exit({WELL})"
    command = [sys.executable, "-I", "-S", "-c", code]
    if chance.randrange(2):
        found = greenlet(subprocess.run).switch(command).returncode
    else:
        pid = greenlet(os.posix_spawn).switch(sys.executable, command, os.environ)
        found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if found != WELL:
        storm.fault(f"a program has ended with {found}")
    storm.count("programs")


def run(storm: Storm) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # that threads may hold locks
    shared: list[Any] = [None]
    tasks = (lambda crew: act(), lambda crew: sorted([3, 1, 2], key=lambda n: acts(n)))

    def busy(chance: random.Random) -> None:
        """A thread whose greenlets run and wait while others fork."""
        crew = Crew(storm, chance, tasks)
        crew.members.append(crew.create())
        crew.resume(crew.members[0])
        shared[0] = crew.members[0]
        crew.run()

    def forking(chance: random.Random) -> None:
        while storm.goes_on():
            if chance.randrange(5) == 0:
                spawn(storm, chance)
            else:
                found = shared[0]
                fork(storm, chance, found if found is not None and not found.dead else None)
            use_greenlets(chance)
            time.sleep(0)

    with_threads = bool(storm.chance.randrange(2))
    print("with other threads" if with_threads else "without threads")
    if with_threads:
        kinds = iter((busy, forking, forking))
        storm.in_threads(lambda chance: next(kinds)(chance), 3)
    else:
        forking(storm.chance)
    shared.clear()
    storm.judge()
