"""Lets memory fail: each allocation in each case of failure_cases.py.

    failures.py [--seed N] [--seconds S] [--only REGEX] [--at CASE NUMBER MODE]

A case runs in a child process, by a fork, with one failure: the allocation of that number fails, or
it and all after it. The numbers go from 0 until nothing fails any more. The case repeats in the
child. Then an ordinary program runs there, and what is left is counted. A fault is

- a crash, a hang, or an exception other than MemoryError and those that the case expects;
- a greenlet that is half made (the cases check that);
- a block of memory, a region or a greenlet that each repetition leaves behind.

With --seconds a sample of the failures is tried, chosen by the seed; --at repeats one failure. The
last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import greenlet as library
from failure_cases import CASES, LEAVE_BLOCKS, NEVER, OWN, Failing, find_own_errors, text_of
from greenlet import _greenlet, getcurrent, greenlet, stacks

MODES = {"once": 1, "from there on": NEVER}
REPEATS = 4
MOST_REPEATS = 2_000
SECONDS = float(os.environ.get("INJECT_SECONDS", "120"))  # a child that takes longer hangs
MOST = 150  # failures of one case and mode that are tried
FINISH_EVERY = 5  # of so many children one ends as programs do, the others at once

COMPILE = Path(__file__).parent.parent / "extensions" / "compile.py"
HEADERS = Path(library.__file__).parent.parent
LEFT = ("blocks", "regions", "threads", "queued", "greenlets")


class Fault(Exception):
    pass


def load(source: str) -> Any:
    """Compile a file of tests/extensions and import it. (helpers.py would import pytest.)"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(COMPILE), source, str(HEADERS), folder]
        path = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        spec = importlib.util.spec_from_file_location(Path(source).stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class Left:
    """Counts what repetitions leave behind. To count allocates nothing that stays."""

    def __init__(self, extension: Any, counts_blocks: bool) -> None:
        self.extension = extension
        self.names = LEFT if counts_blocks else LEFT[1:]
        self.counts = array("q", bytes(8 * REPEATS * len(LEFT)))
        self.rows = 0

    def count(self) -> None:
        gc.collect()
        gc.collect()
        row = self.rows % REPEATS * len(LEFT)
        self.counts[row + 1] = stacks.statistics().in_use
        self.counts[row + 2] = _greenlet.get_total_main_greenlets()
        self.counts[row + 3] = _greenlet.get_pending_cleanup_count()
        self.counts[row + 4] = sum(isinstance(each, greenlet) for each in gc.get_objects())
        self.counts[row] = self.extension.counts()[2]
        self.rows += 1

    def rising(self) -> str | None:
        """What became more with each of the last repetitions."""
        first = self.rows % REPEATS
        for what in self.names:
            row = self.counts[LEFT.index(what) :: len(LEFT)]
            found = [*row[first:], *row[:first]]
            if all(after > before for before, after in pairwise(found)):
                return f"each time more {what}: {found}"
        return None

    def settle(self, repeat: Callable[[], object]) -> None:
        """Repeat until nothing rises. CPython keeps some hundred freed objects of each kind."""
        while self.rows < REPEATS or (self.rows < MOST_REPEATS and self.rising()):
            repeat()
            self.count()
        if what := self.rising():
            raise Fault(what)


def check_program() -> None:
    """An ordinary program works."""

    def consumer(value: int) -> str:
        while value < 10:
            got.append(value)
            value = main.switch(value + 1)
        return "done"

    got: list[int] = []
    main = getcurrent()
    g = greenlet(consumer)
    value: object = 0
    while not g.dead:
        value = g.switch(value)
    assert value == "done"
    assert got == list(range(10)), got


def in_child(work: Callable[[], dict[str, Any]], finishes: bool) -> dict[str, Any]:
    """Call a function in a fork of this process; return what it returns, or {"fault": why}."""
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            faulthandler.enable(file=2)
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=2)
            os.write(1, f"\n{json.dumps(work())}\n".encode())
            if finishes:
                sys.exit()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        said = output.read().decode(errors="replace")
    lines = said.splitlines()
    results = [line for line in lines if line.startswith('{"')]
    noise = [line for line in lines if line and line not in results]
    if (code := os.waitstatus_to_exitcode(status)) or not results:
        return {"fault": "\n".join([f"the child ended with {code}", *noise, *results])}
    result: dict[str, Any] = json.loads(results[-1])
    if noise and "fault" not in result:
        result["fault"] = "\n".join(["it printed", *noise])
    return result


class Machine:
    """Runs cases with failures in them, and keeps what came of it."""

    def __init__(self) -> None:
        self.extension, self.entries = load("failures.c"), load("entries.c")
        replaced = self.extension.watch(_greenlet.__file__)
        assert replaced >= 6, replaced
        find_own_errors(self.extension)
        self.faults: list[str] = []
        self.children = self.failures = 0

    def run(self, name: str, number: int, mode: str) -> None:
        """Repeat a case with this failure, and look at what it leaves."""
        end = number + MODES[mode]
        failing = Failing(self.extension, self.entries, number, end)
        unraisable: list[str] = []

        def note(report: Any) -> None:
            is_own = report.exc_type is SystemError and text_of(report.exc_value) in OWN
            if not is_own and not issubclass(report.exc_type, MemoryError):
                unraisable.append(f"unraisable {report.exc_value!r} in {report.object!r}")

        def repeat() -> None:
            CASES[name](failing)
            if unraisable:
                raise Fault(unraisable[0])

        hook, sys.unraisablehook = sys.unraisablehook, note
        Left(self.extension, name not in LEAVE_BLOCKS).settle(repeat)
        sys.unraisablehook = hook
        assert failing.calls, "nothing could fail"

    def inject(self, name: str, number: int, mode: str) -> int:
        """Run a case with this failure in a child; return how many allocations there were."""

        def work() -> dict[str, Any]:
            try:
                self.run(name, number, mode)
                seen, failed, _ = self.extension.counts()
                check_program()
            except BaseException:
                callers = " < ".join(self.extension.callers())
                return {"fault": f"{traceback.format_exc()}failed: {callers}"}
            return {"seen": seen, "failed": failed}

        result = in_child(work, self.children % FINISH_EVERY == 0)
        self.children += 1
        if "fault" in result:
            self.faults.append(f"--at {name} {number} '{mode}'")
            print(f"fault {self.faults[-1]}\n{result['fault']}", flush=True)
            return 0
        self.failures += result["failed"] > 0
        return int(result["seen"])

    def warm_up(self, name: str) -> bool:
        """Run a case without a failure until CPython's caches are full."""
        try:
            self.run(name, NEVER, "once")
        except Exception:
            self.faults.append(f"{name} without a failure")
            print(f"fault {self.faults[-1]}\n{traceback.format_exc()}", flush=True)
            return False
        return True

    def injections(self, names: list[str], chance: random.Random) -> Iterator[tuple[str, int, str]]:
        for name in names:
            if not self.warm_up(name):
                continue
            seen = self.inject(name, NEVER, "once")
            for mode in MODES:
                numbers = range(seen + 2)  # what handles a failure may allocate, too
                most = 20 if name in LEAVE_BLOCKS else MOST  # interpreters take long to make
                for number in sorted(chance.sample(numbers, min(most, len(numbers)))):
                    yield name, number, mode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--seconds", type=float, help="try a sample")
    parser.add_argument("--only", default="", help="cases whose names this matches")
    parser.add_argument("--at", nargs=3, metavar=("CASE", "NUMBER", "MODE"), help="one failure")
    options = parser.parse_args()
    gc.disable()
    machine = Machine()
    gc.collect()
    gc.freeze()
    start, chance = time.monotonic(), random.Random(options.seed)
    names = [name for name in CASES if re.search(options.only, name)]
    print(f"seed {options.seed}", flush=True)
    if options.at:
        machine.warm_up(options.at[0])
        machine.inject(options.at[0], int(options.at[1]), options.at[2])
    elif options.seconds:
        chosen: list[tuple[str, int, str]] = []
        for name in chance.sample(names, len(names)):
            chosen += machine.injections([name], chance)
            if time.monotonic() - start > options.seconds / 3:
                break
        for each in chance.sample(chosen, len(chosen)):
            machine.inject(*each)
            if time.monotonic() - start > options.seconds:
                break
    else:
        for each in machine.injections(names, chance):
            machine.inject(*each)
    result = {
        "cases": len(names),
        "children": machine.children,
        "failures": machine.failures,
        "seconds": round(time.monotonic() - start),
        "own": sorted(OWN),  # errors of CPython
        "faults": machine.faults,
    }
    print(json.dumps(result))
    return bool(machine.faults)


if __name__ == "__main__":
    sys.exit(main())
