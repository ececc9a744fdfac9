"""Programs that end in every way while greenlets wait and run in all their threads.

Each round is a program that draws what it does from a seed. Its status must be the expected one, it
must have run its functions of atexit (unless it leaves by os._exit() or a signal), and it may print
nothing on stderr but the traceback of the exception that it raises on purpose.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from storms.common import Storm

PATIENCE = 90.0

PROGRAM = '''
import atexit, gc, os, random, signal, sys, threading, time, warnings
from greenlet import GreenletExit, getcurrent, greenlet, settrace

chance = random.Random(int(sys.argv[1]))
ways = ("end", "sys.exit", "os._exit", "raise", "signal", "thread exits")
way = sys.argv[2]
main = getcurrent()
sys.unraisablehook = lambda report: print("unraisable", report.exc_type.__name__)


def body(wait=None):
    """Wait somewhere, with a finally block that acts."""
    parent = getcurrent().parent
    wait = wait or parent.switch
    try:
        kind = chance.randrange(6)
        if kind == 0:
            sorted([2, 1], key=lambda number: (wait(), number)[1])
        elif kind == 1:
            def numbers():
                try:
                    wait()
                    yield 1
                finally:
                    greenlet(int).switch()
            list(numbers())
        elif kind == 2:
            try:
                raise KeyError
            except KeyError:
                wait()
        elif kind == 3:
            for _ in range(3):
                try:
                    wait()
                except GreenletExit:
                    pass
        else:
            wait()
    finally:
        if chance.randrange(3) == 0:
            greenlet(int).switch()


class Finalized:
    """Uses greenlets when it is finalized, perhaps when there is no interpreter any more."""

    def __init__(self):
        self.getcurrent, self.greenlet = getcurrent, greenlet

    def __del__(self):
        try:
            self.getcurrent()
            self.greenlet(int).switch()
            self.waiting = self.greenlet(self.getcurrent().switch)
        except RuntimeError:  # greenlet is being finalized
            pass


def family(count=5):
    found = []
    for _ in range(count):
        g = greenlet(body)
        g.switch()
        kind = chance.randrange(4)
        if kind == 0:
            g.itself = g
        elif kind == 1:
            g.finalized = Finalized()
        found.append(g)
    return found


def thread_body(ends):
    mine = family()
    kind = chance.randrange(3)
    while not ends:
        if kind == 0:
            time.sleep(0.01)
        elif kind == 1:
            mine.append(greenlet(body))
            mine[-1].switch()
            del mine[:-5]
        else:
            greenlet(lambda: time.sleep(0.001)).switch()


kept = family()
sys.modules["kept"] = family()
builtin = Finalized()
builtin.family = family()
ends = []
threads = []
for number in range(chance.randrange(4)):
    daemon = chance.randrange(2) == 0
    thread = threading.Thread(target=thread_body, args=([] if daemon else ends,), daemon=daemon)
    thread.start()
    threads.append(thread)
time.sleep(chance.choice((0, 0.005, 0.02)))


@atexit.register
def at_exit():
    assert greenlet(lambda: 5).switch() == 5
    if chance.randrange(2):
        family()
    print("at exit", flush=True)


if chance.randrange(3) == 0:
    settrace(lambda *args: None)
if chance.randrange(3) == 0:
    gc.collect()


def leave():
    ends.append(1)
    if way == "sys.exit":
        sys.exit(23)
    if way == "os._exit":
        os._exit(23)
    if way == "raise":
        raise ZeroDivisionError("on purpose")
    if way == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if way == "thread exits":
        threading.Thread(target=sys.exit, args=(1,)).start()


def nested(depth):
    if depth:
        greenlet(nested).switch(depth - 1)
    else:
        leave()


nested(chance.randrange(4))
'''

# The status, and whether functions of atexit run.
WAYS = {
    "end": (0, True),
    "sys.exit": (23, True),
    "os._exit": (23, False),
    "raise": (1, True),
    "signal": (15 if sys.platform == "win32" else -15, False),  # Windows ends it with the number
    "thread exits": (0, True),
}


def run(storm: Storm) -> None:
    def rounds(chance: random.Random) -> None:
        while storm.goes_on():
            one_round(storm, chance.randrange(1 << 30), chance.choice(list(WAYS)))

    storm.in_threads(rounds, 2)


def one_round(storm: Storm, seed: int, way: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(seed), way],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=os.environ,
        )
    except subprocess.TimeoutExpired as late:
        storm.fault(f"seed {seed}, {way}: no end; {late.stderr!r}")
        return
    status, exits = WAYS[way]
    errors = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("GreenletExit did not kill")
    ]
    if way == "raise" and "ZeroDivisionError" in done.stderr:
        # Daemon threads may write in the middle of the traceback's lines.
        errors = [line for line in errors if "Fatal Python error" in line]
    right = done.returncode == status and ("at exit" in done.stdout.splitlines()) == exits
    if not right or errors:
        storm.fault(f"seed {seed}, {way}: {done.returncode}, {done.stdout!r}\n{done.stderr}")
    storm.count(f"of {way}")
