"""Random programs, made from a seed."""

from __future__ import annotations

import random
import sys
from typing import Any

from machine import (
    CALLS,
    EXACT_SWITCHES,
    INEXACT_CALLS,
    SHARED,
    SLOTS,
    SWITCHES,
    THROWS,
    Operation,
    grouped,
)

#: How often each kind of operation comes, beside the others.
WEIGHTS = {
    "create": 12,
    "switch": 26,
    "throw": 8,
    "reparent": 5,
    "drop": 5,
    "store": 2,
    "copy_slot": 1,
    "keep": 3,
    "unkeep": 1,
    "cycle": 2,
    "collect": 1,
    "look": 3,
    "frames": 2,
    "change_run": 2,
    "init": 1,
    "trim": 1,
    "return": 7,
    "raise": 3,
    "call": 14,
    "make": 3,
    "use": 8,
    "discard": 1,
    "set_variable": 2,
    "get_variable": 3,
    "reset_variable": 1,
    "give_context": 1,
    "trace": 1,
    "python_trace": 1,
    "monitor": 1,
    "start_thread": 1,
    "go_to_thread": 4,
    "end_thread": 1,
}
#: Classes with a __del__ that tells.
FINALIZERS = (6, 7)
ALWAYS = {"create", "switch", "return", "look"}


def program(seed: int) -> list[Operation]:
    """A program: a third of the kinds of operations is missing in each, so that others meet."""
    chance = random.Random(seed)
    names = [name for name in WEIGHTS if name in ALWAYS or chance.random() < 0.66]
    simple = chance.random() < 0.4
    if simple or chance.random() < 0.6:
        names = [name for name in names if name not in ("cycle", "collect")]
    if simple:
        # sys.settrace goes wrong beside the other trace function, with the published greenlet.
        without = chance.choice((("trace",), ("python_trace", "monitor")))
        names = [name for name in names if name not in without]
    if "collect" in names:
        # To see what the frames refer to, the model changes a frame's locals, up to 3.12.
        names = [name for name in names if name != "python_trace"]
    if threads := "start_thread" in names:
        # Free-threaded builds finalize most objects in the thread that made them, when it looks.
        names = [name for name in names if name not in ("make", "use", "discard")]
    weights = [WEIGHTS[name] * chance.choice((0.5, 1, 1, 2)) for name in names]
    length = chance.choice((20, 60, 120, 250))
    exact = "collect" in names
    switches = EXACT_SWITCHES if exact else len(SWITCHES)
    # The switch of another greenlet as run has no Python frame: the published one takes it for
    # running. And it cannot start a partial of a class (5) when its child ends by GreenletExit.
    kinds = (0, 1, 2, 3, 6) if exact else (0, 1, 2, 3, 6, 7) if simple else range(8)
    left_out: tuple[Any, ...] = INEXACT_CALLS if exact else ()
    if hasattr(sys, "gettotalrefcount"):
        left_out += (grouped,)  # debug builds assert that what leaves `except*` has a traceback
    calls = [i for i, made in enumerate(CALLS) if made not in left_out]
    catches = chance.choice((0.3, 0.7, 0.95))
    # A collection finalizes at once what greenlets of other threads have still to go through.
    tokens = chance.random() < 0.5 and not exact and not threads

    def someone() -> int:
        return chance.randrange(-2, SLOTS) if chance.random() < 0.5 else chance.randrange(SLOTS)

    def value() -> int:
        return chance.randrange(16 if tokens else 15)

    def catch() -> bool:
        return chance.random() < catches

    def one(name: str) -> Operation:
        below = chance.randrange
        match name:
            case "create":
                parent = someone() if chance.random() < 0.3 else None
                kind = 0 if chance.random() < 0.8 else chance.choice(kinds)
                # A class's own switch that calls ours with *args holds it in C code.
                cls = below(9 if exact else 10)
                cls = 0 if threads and cls in FINALIZERS else cls
                return name, below(SLOTS), cls, parent, kind
            case "switch":
                # One token in a message: in which order several go is not specified.
                return name, someone(), below(switches), value(), below(15), catch()
            case "throw":
                return name, someone(), below(len(THROWS)), catch()
            case "reparent" | "copy_slot":
                return name, below(SLOTS), someone()
            case "drop" | "store" | "cycle":
                return name, below(SLOTS)
            case "keep" | "frames":
                return name, someone()
            case "change_run":
                return name, someone(), below(3)
            case "init":
                return name, someone(), below(2)
            case "return":
                # Not a greenlet (12), which callers may hold in C code.
                what = value()
                return name, 11 if exact and what == 12 else what
            case "raise":
                return name, below(5)
            case "call":
                return name, chance.choice(calls), catch()
            case "make" | "discard":
                return name, below(3 * SHARED)
            case "use":
                return name, below(3 * SHARED), below(4), catch()
            case "set_variable" | "reset_variable":
                return name, below(100)
            case "give_context":
                return name, someone(), below(3)
            case "trace":
                # A callback's arguments are held in C code.
                return name, chance.choice((0, 1, 3, 4, 5, 6, 7)) if exact else below(8)
            case "python_trace" | "monitor" | "go_to_thread":
                return name, below(3)
        return (name,)

    made = [one(name) for name in chance.choices(names, weights, k=length)]
    # What the published greenlet does otherwise (docs/internals/ledger.md) is not in simple
    # programs: garbage with suspended greenlets, and threads that end with suspended greenlets.
    if simple:
        made.append(("simple",))
    elif "end_thread" in names and chance.random() < 0.2:
        made.append(("leave",))
    return made
