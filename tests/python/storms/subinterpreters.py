"""Interpreters that are made, used and ended while greenlets wait, in main and other threads.

Each thread has greenlets of the main interpreter. In them, and between them, it makes interpreters,
with a GIL of their own or not, runs programs in them that leave greenlets waiting, hands them to
other threads, and ends them, in any order. The greenlets of the main interpreter go on as they
were.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from child import Interpreter
from greenlet import getcurrent, greenlet

from storms.common import FREE_THREADED, Storm, act

MOST = 4  # interpreters of a thread at once

PROGRAM = """
import gc, random, sys
from greenlet import GreenletExit, getcurrent, greenlet

chance = random.Random({seed})

def body(value):
    hub = getcurrent().parent
    try:
        local = [value]
        for number in range(chance.randrange(4)):
            sorted([2, 1], key=lambda one: (hub.switch(value), one)[1])
        assert local == [value]
    except KeyError:
        hub.switch()
    finally:
        ended.append(value)
    return value

ended = globals().setdefault("ended", [])
started = globals().setdefault("started", [])
# Those of the run before: it may have had a thread state of its own, which has ended.
old = globals().get("family", [])
old.clear() if chance.randrange(2) else globals().setdefault("kept", []).append(old)
family = [greenlet(body) for _ in range(5)]
for number in range(40):
    g = chance.choice(family)
    if not g.dead and not g:
        started.append(g)
    step = chance.randrange(8)
    try:
        if step < 5 or not g:
            g.switch(number) if not g and not g.dead else g.switch()
        elif step == 5:
            g.throw(KeyError)
        elif step == 6:
            g.throw()
        else:
            g.itself = g
            family.remove(g)
            del g
            family.append(greenlet(body))
            gc.collect()
    except (KeyError, TypeError):
        pass
{more}
"""
# What a program does last.
MORE = (
    "",
    "family.clear(); started.clear(); gc.collect()",
    # In a thread of the interpreter.
    """
import threading
def in_thread():
    one = greenlet(body)
    one.switch(1)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
""",
    # Greenlets that only the interpreter's teardown finds.
    "sys.modules['kept'] = family",
)


def run(storm: Storm) -> None:
    # 3.11 has one GIL. A free-threaded build has none, and then an interpreter of the shared kind
    # shares more than its makers say.
    kinds = (False,) if sys.version_info < (3, 12) else (True,) if FREE_THREADED else (True, False)

    def work(chance: random.Random) -> None:
        interpreters: list[Any] = []

        def step() -> None:
            """Make, use or end an interpreter."""
            if (len(interpreters) < MOST and chance.randrange(4) == 0) or not interpreters:
                interpreters.append(Interpreter(own_gil=chance.choice(kinds)))
                storm.count("interpreters")
            chosen = interpreters.pop(chance.randrange(len(interpreters)))
            if chance.randrange(4) == 0:
                chosen.close()
                return
            program = PROGRAM.format(seed=chance.randrange(1 << 30), more=chance.choice(MORE))
            try:
                chosen.run(program)
            except RuntimeError as raised:
                storm.fault(f"a program in an interpreter: {raised}")
            storm.count("programs")
            interpreters.append(chosen)

        def body() -> None:
            hub = getcurrent().parent
            assert hub is not None
            while storm.goes_on():
                local = [chance.randrange(10)]
                before = list(local)
                step()
                hub.switch()
                act()
                if local != before:
                    storm.fault("a local variable has changed")

        family = [greenlet(body) for _ in range(4)]
        while storm.goes_on():
            chosen = chance.choice(family)
            if chosen.dead or chance.randrange(10) == 0:
                family.remove(chosen)
                family.append(greenlet(body))
            else:
                chosen.switch()
            del chosen
        family.clear()
        for interpreter in interpreters:
            interpreter.close()

    storm.in_threads(work, 2)
    storm.judge()
