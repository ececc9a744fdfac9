"""Compares what the collector finds with what is owned, wherever a greenlet can be left.

    exact_visits.py EXTENSION [--seed N] [--seconds S] [--full] [--only REGEX] [--modes MODE ...]

EXTENSION is the compiled tests/extensions/visits.c. Each shape of visit_cases.py runs in a greenlet
that is left, by what the shape calls, or by a trace function at each opcode. Each time, the visits
of all objects that the collector tracks are compared with their references:

- An object with more visits than references is a fault: the collector would free what is in use.
- Only the greenlet's frames refer to a shape's probes. A reference to one that no visit accounts
  for is hidden: garbage with it leaks.

The last line is the result as JSON. `--progress FILE` names the shape under way, for crashes.
"""

from __future__ import annotations

import argparse
import contextlib
import contextvars
import functools
import gc
import importlib.util
import itertools
import json
import marshal
import opcode
import operator
import random
import re
import sys
import sysconfig
import time
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet
from visit_cases import HELPERS, Shape, catalogue, random_shape

FILES = ("<shape>", "<helpers>")
WARM = 40  # calls after which the interpreter has specialized what it will
# What was there before the first shape is frozen, so that looks are quick, but for each such run.
ALL_EVERY = 25
COLLECT_EVERY = 10  # looks
FRAMES_EVERY = 3
FAULTS = 20  # of which the details are kept

CO_OPTIMIZED = 1  # of co_flags
GENERATORS = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)

main = getcurrent()


class Probe:
    """What is looked for."""


class State:
    """What the shapes, the trace functions and the loop that looks share."""

    def __init__(self) -> None:
        self.left: greenlet | None = None  # who left for the main greenlet
        self.serial = 0
        self.leave: Callable[[], Any] = main.switch
        self.namespace: dict[str, Any] = {}
        self.event = ""  # in which a trace function leaves


state = State()


def switch() -> Any:
    """What w() of the shapes leaves by."""
    current = getcurrent()
    if current is not main:
        state.left = current
    del current
    return main.switch()


def serial() -> str:
    state.serial += 1
    return str(state.serial)


class Importer:
    """Modules that leave for the main greenlet while they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith("visited"):
            return None
        return ModuleSpec(name, self, is_package=name == "visited_package")  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["w"] = state.namespace["w"]
        exec(marshal.loads(MODULE), module.__dict__)


MODULE = marshal.dumps(compile("x = w()", "<helpers>", "exec"))
HELPING = marshal.dumps(compile(HELPERS, "<helpers>", "exec"))
GIVEN = {
    "Probe": Probe,
    "switch": switch,
    "serial": serial,
    "main": main,
    "greenlet": greenlet,
    "getcurrent": getcurrent,
    **{
        module.__name__: module
        for module in (
            contextlib,
            contextvars,
            functools,
            itertools,
            operator,
            re,
            sys,
            types,
            weakref,
        )
    },
}


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("visited")]:
        del sys.modules[name]


def prepared(shape: Shape) -> dict[str, Any]:
    """A namespace with the shape and its helpers, none of which has run."""
    forget_modules()
    namespace: dict[str, Any] = {"__name__": "shapes", **GIVEN}
    exec(marshal.loads(HELPING), namespace)
    namespace["s"] = main.switch
    exec(compile(shape.source, "<shape>", "exec"), namespace)
    state.namespace = namespace
    return namespace


def compiles(shape: Shape) -> bool:
    """3.12 and 3.13 fail at `class K: a = [lambda: __class__ for x in y]`.

    3.13 ends by a signal when what it has made of tests/cpython_faults/comprehension_in_a_class.py
    runs.
    """
    is_313 = sys.version_info[:2] == (3, 13)
    if is_313 and shape.name.startswith("class, closure") and "lambda: [x" in shape.source:
        return False
    try:
        compile(shape.source, "<shape>", "exec")
    except SystemError:
        if sys.version_info >= (3, 14):
            raise
        return False
    return True


def outcome(function: Callable[[], Any]) -> str:
    """What a shape did, as text."""
    try:
        result = function()
    except Exception as error:
        return type(error).__name__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr_of(result))


def end_survivors() -> None:
    """Greenlets that outlive their GreenletExit, and what they hold, stay until their thread ends.

    s() of a shape is the next switch of one that w() has left, and that is killed.
    """
    for one in [one for one in gc.get_objects() if isinstance(one, greenlet)]:
        for _ in range(100):
            if one and one is not main:
                with contextlib.suppress(Exception):
                    one.throw()


def repr_of(result: Any) -> str:
    # In the main greenlet, so that W's method does not leave.
    return repr(result) if getcurrent() is main else ""


def drive(g: greenlet, look: Callable[[], None] | None = None) -> Any:
    """Run a greenlet to its end; look each time it, or one that it started, leaves."""
    state.left = None
    # What a shape sends comes back to it. Until then it is where the collector sees it.
    sent = [g.switch()]
    while not g.dead:
        if look is not None:
            look()
        left, state.left = state.left, None
        if left is None or left.dead:
            left = g
        sent.append(left.switch(sent.pop()))
        left = None
    return sent.pop()


def not_shown(g: greenlet) -> Iterator[str]:
    """What the frames of a suspended greenlet certainly refer to, and it shows to nobody.

    Counts tell nothing of references that own none, as those of free-threaded builds to functions
    and code, and those that 3.14+ borrows. But the passes that look for what is alive have to find
    the object of each.
    """
    frames = []
    frame = g.gr_frame
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    running = [one for one in gc.get_objects() if isinstance(one, GENERATORS)]
    shown = gc.get_referents(g, *running)
    shown += gc.get_referents(*(one for one in shown if isinstance(one, types.CellType)))
    ids = {id(one) for one in shown}
    functions = {id(one.__code__) for one in shown if isinstance(one, types.FunctionType)}
    for frame in frames:
        code = frame.f_code
        if id(code) not in ids:
            yield f"the code of {code.co_name}"
        if id(code) not in functions and code.co_name != "<module>":
            yield f"the function of {code.co_name}"
        # Before, f_locals is a copy that the frame keeps.
        if sys.version_info >= (3, 13) and code.co_flags & CO_OPTIMIZED:
            for name, value in frame.f_locals.items():
                if id(value) not in ids and gc.is_tracked(value):
                    yield f"{name} of {code.co_name}"


# --- ways to run a shape ----------------------------------------------------------------------


@contextlib.contextmanager
def tracing(leaves: Callable[[], bool] | None) -> Iterator[None]:
    """Trace lines, and leave at opcodes, too, if `leaves` says so."""

    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if leaves is not None:
            frame.f_trace_opcodes = True
            if leaves():
                state.event = event
                if event == "opcode":
                    code, at = frame.f_code, frame.f_lasti
                    state.event = f"before {opcode.opname[code.co_code[at]]}"
                    del code
                switch()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


EVENTS = (
    *("PY_START", "PY_RESUME", "PY_RETURN", "PY_YIELD", "CALL", "LINE", "INSTRUCTION", "JUMP"),
    *("BRANCH", "BRANCH_LEFT", "BRANCH_RIGHT", "STOP_ITERATION", "RAISE", "EXCEPTION_HANDLED"),
    *("PY_UNWIND", "PY_THROW", "RERAISE", "C_RETURN", "C_RAISE"),
)


@contextlib.contextmanager
def monitoring(leaves: Callable[[], bool] | None) -> Iterator[None]:
    """Monitor every event there is, and leave in them if `leaves` says so."""
    tool = 3
    sys_monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]

    def monitor(event: str, code: types.CodeType, *rest: object) -> None:
        if leaves is not None and code.co_filename in FILES and leaves():
            state.event = event
            switch()

    known = [getattr(sys_monitoring.events, name, 0) for name in EVENTS]
    if hasattr(sys_monitoring.events, "BRANCH_LEFT"):
        known.remove(sys_monitoring.events.BRANCH)
    sys_monitoring.use_tool_id(tool, "exact visits")
    for name in EVENTS:
        event = getattr(sys_monitoring.events, name, 0)
        if event in known and event:
            sys_monitoring.register_callback(tool, event, functools.partial(monitor, name))
    # C_RETURN and C_RAISE come with CALL.
    sys_monitoring.set_events(tool, functools.reduce(operator.or_, known))
    try:
        yield
    finally:
        sys_monitoring.set_events(tool, 0)
        for event in filter(None, known):
            sys_monitoring.register_callback(tool, event, None)
        sys_monitoring.free_tool_id(tool)


# Each way to run a shape: specialized before or not, traced or monitored, left at each event.
MODES = {
    "cold": (False, None, False),
    "specialized": (True, None, False),
    "traced": (False, tracing, False),
    "specialized, traced": (True, tracing, False),
    "opcodes": (False, tracing, True),
    "specialized, opcodes": (True, tracing, True),
}
if sys.version_info >= (3, 12):
    MODES |= {
        "monitored": (False, monitoring, False),
        "specialized, monitored": (True, monitoring, False),
        "events": (False, monitoring, True),
        "specialized, events": (True, monitoring, True),
    }
PLAIN = ("cold", "specialized")


class Totals:
    """The numbers of one mode."""

    def __init__(self) -> None:
        self.runs = 0
        self.switches = 0
        self.compared = 0
        self.probes = 0
        self.uncounted = 0
        self.too_many = 0
        self.not_shown = 0  # code, functions and variables of frames that no visit finds
        self.too_few = 0  # references to probes that no visit accounts for
        self.short = 0  # switches after which there are such
        self.short_unexplained = 0  # of those, where no C function is known to own them


class Checker:
    """Runs shapes and looks."""

    def __init__(self, visits: Any, chance: random.Random, progress: Path | None) -> None:
        self.visits = visits
        self.chance = chance
        self.progress = progress
        self.totals = {mode: Totals() for mode in MODES}
        self.faults: list[str] = []
        self.hidden: dict[str, str] = {}  # the first look of each shape that hid something
        self.looks = 0
        self.runs = 0

    def fault(self, text: str, shape: Shape, mode: str) -> None:
        if len(self.faults) < FAULTS:
            self.faults.append(f"{text}\n{mode}: {shape.name}\n{shape.source}")

    def run(self, shape: Shape, mode: str, *, share: float = 1.0) -> None:
        """Run a shape; look each time it leaves, or at this share of the events."""
        if self.progress:
            self.progress.write_text(f"{mode}: {shape.name}\n{shape.source}")
        self.runs += 1
        if self.runs % ALL_EVERY == 0:
            gc.unfreeze()
        expected = outcome(functools.partial(drive, greenlet(prepared(shape)["shape"])))
        happened = self.happened(shape, mode, share)
        state.left = None
        state.namespace = {}
        # Sets have no order.
        if sorted(happened) != sorted(expected):
            self.fault(f"{happened} instead of {expected}", shape, mode)
        self.clean(shape, mode)
        if self.runs % ALL_EVERY == 0:
            gc.freeze()

    def happened(self, shape: Shape, mode: str, share: float) -> str:
        """Run it in this mode, and look each time it leaves; what it did, as text."""
        specialized, context, at_events = MODES[mode]
        function = prepared(shape)["shape"]
        for _ in range(WARM if specialized else 0):
            with contextlib.suppress(Exception):
                contextvars.Context().run(function)
        state.left = None
        chance = self.chance

        def leaves() -> bool:
            return getcurrent() is not main and (share == 1.0 or chance.random() < share)

        def body() -> Any:
            if context is None:
                return function()
            with context(leaves if at_events else None):
                return function()

        g = greenlet(body)
        self.totals[mode].runs += 1

        return outcome(functools.partial(drive, g, lambda: self.look(shape, mode)))

    def clean(self, shape: Shape, mode: str) -> None:
        """Nothing of the last shapes is left."""
        forget_modules()
        for _ in range(10):
            end_survivors()
            if not gc.collect():
                break
        # Free-threaded CPython makes a function immortal that a finalizer often calls while the
        # function is garbage, and what its closure refers to may stay with it:
        #
        #     class K:
        #         def m(self): ...
        #         def __del__(self):
        #             for _ in range(100): self.m()
        #
        # An instance that refers to itself, dropped, is found by every collection from then on.
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            return
        left = [one for one in gc.get_objects() if isinstance(one, Probe)]
        if left:
            self.fault(f"{len(left)} probes are left, the last shape was", shape, mode)
            for one in left:
                one.__class__ = Told  # type: ignore[assignment]
        del left

    def look(self, shape: Shape, mode: str) -> None:
        self.looks += 1
        total = self.totals[mode]
        at_events = MODES[mode][2]
        collect = self.looks % COLLECT_EVERY == 0
        compared, _, wrong, probes, missing, hidden, uncounted, dying = self.visits.look(
            Probe, collect
        )
        if dying is not None:
            # gc.get_referents() would take a reference to it, and free it once more.
            total.too_many += 1
            self.fault(f"a {dying} is visited while it is deallocated", shape, mode)
        total.switches += 1
        total.compared += compared
        total.probes += probes
        total.uncounted += uncounted
        total.too_few += missing
        for text, thing, owned, counted, alive in wrong:
            total.too_many += 1
            self.fault(
                f"{text}: {describe(thing)}, {owned} references, {counted} visits"
                f" ({alive} with those that do not count)"
                f"{f' in {state.event}' if at_events else ''}",
                shape,
                mode,
            )
        del wrong
        if hidden:
            total.short += 1
            if not shape.owned_by_c:
                total.short_unexplained += 1
            where = f" {state.event}" if at_events else ""
            name = f"{'C: ' if shape.owned_by_c else ''}{mode}{where}: {shape.name}"
            if name not in self.hidden:
                kinds = sorted(type(one).__name__ for one in hidden)
                source = f"\n{shape.source}" if "at random" in shape.name else ""
                self.hidden[name] = f"{missing} of {kinds}{source}"
        del hidden
        if self.looks % FRAMES_EVERY == 0 and dying is None and state.left is not None:
            for text in not_shown(state.left):
                total.not_shown += 1
                self.fault(f"not shown: {text}", shape, mode)


class Told:
    """A probe that outlived its shape, and is told of once."""


def describe(thing: object) -> str:
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return f"{type(thing).__name__} {name or object.__repr__(thing)}"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("visits", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main_program(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extension", type=Path)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--seconds", type=float, default=0.0, help="of shapes and modes at random")
    parser.add_argument("--full", action="store_true", help="each shape in each mode")
    parser.add_argument("--only", default="", help="shapes in whose name this expression is found")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the shapes to run")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--share", type=float, help="of the events to leave at")
    parser.add_argument("--progress", type=Path)
    parser.add_argument("--show-hidden", action="store_true")
    options = parser.parse_args(arguments)

    gc.disable()
    sys.meta_path.insert(0, Importer())
    visits = load(options.extension)
    visits.learn()
    chance = random.Random(options.seed)
    checker = Checker(visits, chance, options.progress)
    shapes = [shape for shape in catalogue() if re.search(options.only, shape.name)]
    if options.sample < 1.0:
        shapes = chance.sample(shapes, int(len(shapes) * options.sample))
    print(f"seed {options.seed}, {len(shapes)} shapes", flush=True)
    gc.collect()
    gc.freeze()

    if options.full:
        for mode in options.modes:
            started = time.monotonic()
            for shape in shapes:
                checker.run(shape, mode, share=options.share or 1.0)
            print(f"{mode}: {time.monotonic() - started:.0f} s", flush=True)
    else:
        plain = [mode for mode in PLAIN if mode in options.modes]
        for shape in shapes:
            checker.run(shape, chance.choice(plain))
    until = time.monotonic() + options.seconds
    while time.monotonic() < until:
        shape = random_shape(chance) if chance.random() < 0.7 else chance.choice(shapes)
        if compiles(shape):
            checker.run(shape, chance.choice(options.modes), share=options.share or 0.2)

    for fault in checker.faults:
        print(fault, flush=True)
    if options.show_hidden:
        for name, what in checker.hidden.items():
            print(f"hidden: {name}: {what}", flush=True)
    result = {
        "seed": options.seed,
        "shapes": len(shapes),
        "modes": {mode: vars(total) for mode, total in checker.totals.items() if total.runs},
        "faults": checker.faults,
    }
    print(json.dumps(result))
    return 1 if checker.faults else 0


if __name__ == "__main__":
    sys.exit(main_program())
