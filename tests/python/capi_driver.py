"""Calls the entries of greenlet.h at random, with right, wrong, dead and foreign arguments.

    capi_driver.py [--seed N] [--seconds S] [--threads T] [--programs N]
    capi_driver.py --one SEED [--threads T] [--without I,J,...] [--verbose]

A program is a list of steps that follows from its seed. Its threads have lists of their own, but
share the greenlets. A step calls an entry, or drops an object, collects, leaves the greenlet that
runs, or ends it. After each call the result and the exception are checked against the contract.
Programs run in child processes, several in each. One that fails alone is shrunk: the output then
has the step numbers to leave out. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib.util
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import greenlet as library
from child import Interpreter
from greenlet import GreenletExit, getcurrent, greenlet, settrace

COMPILE = Path(__file__).parent.parent / "extensions" / "compile.py"
HEADERS = Path(library.__file__).parent.parent

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

NULL = ...
STEPS = 250  # of a program
PROGRAMS = 40  # of a child process
SLOTS = 24
SECONDS = 120.0  # a child that takes longer hangs

NEW, GET_CURRENT, THROW, SWITCH, SET_PARENT, MAIN, STARTED, ACTIVE, GET_PARENT = range(3, 12)
ARGUMENTS = {NEW: 2, GET_CURRENT: 0, THROW: 4, SWITCH: 3, SET_PARENT: 2}
FLAGS = (MAIN, STARTED, ACTIVE)


class Thrown(Exception):
    """What programs throw."""


class Special(greenlet):
    __slots__ = ("more",)


class Refusing(greenlet):
    """Cannot be started."""

    @property
    def run(self) -> Any:
        raise Thrown

    @run.setter
    def run(self, value: Any) -> None: ...


class Switching(greenlet):
    """Leaves in the lookup of its run."""

    @property
    def run(self) -> Any:
        current = getcurrent()
        if current.parent is not None:
            current.parent.switch()
        return int

    @run.setter
    def run(self, value: Any) -> None: ...


def made_traceback() -> Any:
    try:
        raise Thrown
    except Thrown as error:
        return error.__traceback__


TRACEBACK = made_traceback()
#: An entry may raise these: for wrong arguments, for switches that are not possible, by `run`.
ALLOWED = (TypeError, ValueError, AttributeError, library.error, Thrown, KeyError, RecursionError)


class Step(NamedTuple):
    number: int
    action: str
    entry: int
    choices: tuple[float, ...]  # for the arguments
    pending: bool


def steps_of(seed: int, thread: int) -> list[Step]:
    chance = random.Random(f"{seed}/{thread}")
    actions = chance.choices(
        ["call", "drop", "collect", "leave", "return", "raise", "trace"],
        [100, 8, 1, 12, 6, 4, 1],
        k=STEPS,
    )
    entries = chance.choices(range(NEW, GET_PARENT + 1), [6, 1, 5, 12, 5, 1, 1, 1, 1], k=STEPS)
    return [
        Step(
            number,
            action,
            entry,
            tuple(chance.random() for _ in range(9)),
            chance.random() < 0.06,
        )
        for number, (action, entry) in enumerate(zip(actions, entries, strict=True))
    ]


class Program:
    """Runs the steps of one seed."""

    def __init__(
        self, driver: Any, foreign: list[Any], seed: int, left_out: set[int], verbose: bool
    ) -> None:
        self.driver, self.foreign, self.seed = driver, foreign, seed
        self.left_out, self.verbose = left_out, verbose
        self.slots: list[Any] = [None] * SLOTS
        self.local = threading.local()  # of each thread: its steps
        self.failures: list[str] = []
        self.calls = 0

    def run(self, threads: int) -> None:
        workers = [threading.Thread(target=self.work, args=[each]) for each in range(1, threads)]
        for worker in workers:
            worker.start()
        self.work(0)
        for worker in workers:
            worker.join()
        settrace(None)
        self.slots[:] = []

    def work(self, thread: int) -> None:
        steps = [step for step in steps_of(self.seed, thread) if step.number not in self.left_out]
        self.local.steps, self.local.thread = iter(steps), thread
        main = getcurrent()
        try:
            while self.go_on():
                pass
        except BaseException:
            self.failures.append(traceback.format_exc())
        assert getcurrent() is main

    def go_on(self) -> bool:
        """Run the next steps in this greenlet. False when there are no more."""
        for step in self.local.steps:
            match step.action:
                case "call":
                    self.call(step)
                case "drop":
                    self.slots[int(step.choices[0] * SLOTS)] = None
                case "collect":
                    gc.collect()
                case "trace":
                    settrace(self.trace if step.choices[0] < 0.5 else None)
                case "leave" if (parent := getcurrent().parent) is not None:
                    self.settle(self.driver.call(SWITCH, NULL, parent))
                case "return":
                    return True
                case "raise" if getcurrent().parent is not None:
                    raise Thrown
                case _:
                    pass
            if self.failures:
                return False
        return False

    def trace(self, event: str, pair: tuple[greenlet, greenlet]) -> None:
        """The callback of settrace()."""

    def body(self, *args: Any, **kwargs: Any) -> Any:
        """What runs in greenlets: the next steps of the thread."""
        self.go_on()
        return args

    # --- arguments

    def a_greenlet(self, chance: float) -> Any:
        makers: list[Callable[[], Any]] = [
            lambda: greenlet(self.body),
            lambda: Special(self.body),
            lambda: greenlet.__new__(greenlet),
            lambda: Special.__new__(Special),
            Refusing,
            Switching,
            getcurrent,
            lambda: greenlet(self.body, getcurrent()),
        ]
        kept = [slot for slot in self.slots if isinstance(slot, greenlet)]
        index = int(chance * 100)
        if index < 60 and kept:
            return kept[int(chance * 1e6) % len(kept)]
        return makers[index % len(makers)]()

    def anything(self, chance: float) -> Any:
        wrong: list[Any] = [NULL, None, 5, "text", greenlet, object(), (), {}, [], Thrown, Thrown()]
        wrong += self.foreign
        return wrong[int(chance * 1e6) % len(wrong)]

    def argument(self, entry: int, index: int, step: Step) -> Any:
        chance, other = step.choices[2 * index], step.choices[2 * index + 1]
        if other < 0.1:
            return self.anything(chance)
        if index == 0 and entry == NEW:
            return self.body
        if index == 0 or (index == 1 and entry in (NEW, SET_PARENT)):
            return self.a_greenlet(chance)
        right: list[Any]
        if entry == SWITCH:
            right = [NULL, (), (1,), (1, 2), None] if index == 1 else [NULL, NULL, {}, {"a": 1}]
        elif index == 1:
            right = [Thrown, Thrown(), GreenletExit, KeyError, GreenletExit()]
        else:
            right = [NULL, None, NULL, 5 if index == 2 else TRACEBACK]
        return right[int(chance * 1e6) % len(right)]

    # --- calls

    def call(self, step: Step) -> None:
        entry, thread = step.entry, self.local.thread
        args = [self.argument(entry, index, step) for index in range(ARGUMENTS.get(entry, 1))]
        pending = Thrown("pending") if step.pending else NULL
        if self.verbose:
            shown = [f"{type(each).__name__} {each!r}" for each in args]
            print(thread, step.number, entry, shown, pending, file=sys.stderr, flush=True)
        value, error = self.driver.call(entry, pending, *args)
        self.calls += 1
        why = self.fault(entry, args, pending, value, error)
        if why:
            self.failures.append(
                f"thread {thread} step {step.number}: entry {entry} of {args!r} with {pending!r} "
                f"returned {value!r} and set {error!r}: {why}"
            )
        if isinstance(value, greenlet):
            self.slots[int(step.choices[8] * SLOTS)] = value
        self.settle((value, error))

    def settle(self, outcome: tuple[Any, Any]) -> None:
        """Let a GreenletExit that came out of a call end this greenlet."""
        _, error = outcome
        if isinstance(error, GreenletExit) and getcurrent().parent is not None:
            raise error.with_traceback(None)

    def fault(self, entry: int, args: list[Any], pending: Any, value: Any, error: Any) -> str:
        """What is wrong with an outcome, if anything."""
        if value is NULL:
            if error is NULL:
                is_main = entry == GET_PARENT and isinstance(args[0], greenlet)
                return "" if is_main else "no result and no exception"
            if not isinstance(error, (*ALLOWED, GreenletExit)):
                return "an exception that nobody has raised"
        elif error is not NULL and error is not pending:
            return "a result and an exception"
        if entry not in (NEW, GET_CURRENT) and not isinstance(args[0], greenlet):
            if value is not NULL or not isinstance(error, TypeError):
                return "not a TypeError"
        elif entry in FLAGS and value is not NULL and value not in (0, 1):
            return "no flag"
        elif entry == GET_CURRENT and value is not getcurrent():
            return "not the current greenlet"
        elif entry == SET_PARENT and value is not NULL and value != 0:
            return "neither 0 nor -1"
        return ""


def compile_driver(folder: str) -> str:
    command = [sys.executable, str(COMPILE), "driver.c", str(HEADERS), folder]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("driver", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def foreigners(driver: Any, other: Interpreter) -> list[Any]:
    """Greenlets of another interpreter, which shares the GIL: its main one, and a new one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "addresses")
        other.run(
            f"""
            import greenlet
            kept = [greenlet.getcurrent(), greenlet.greenlet()]
            with open({str(file)!r}, "w") as file:
                print(*map(id, kept), file=file)
            """
        )
        return [driver.at(int(address)) for address in file.read_text().split()]


def run_here(options: argparse.Namespace, seeds: range) -> int:
    """Run programs in this process; print each seed before it begins."""
    sys.unraisablehook = lambda report: None  # finalizers of greenlets raise what they like
    driver = load(options.driver)
    left_out = {int(number) for number in options.without.split(",") if number}
    # On free-threaded builds the collector marks what it reaches. It must not reach the objects of
    # another interpreter, where it does not take the marks away.
    other = None if FREE_THREADED else Interpreter(own_gil=False)
    foreign = foreigners(driver, other) if other else []
    for seed in seeds:
        print(seed, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        program = Program(driver, foreign, seed, left_out, options.verbose)
        program.run(options.threads)
        gc.collect()
        if program.failures:
            print("\n".join(program.failures), file=sys.stderr)
            return 1
        print("calls", program.calls, flush=True)
    foreign.clear()
    if other:
        other.close()
    return 0


def run_child(options: argparse.Namespace, seed: int, *more: str) -> tuple[int | None, int, str]:
    """Run programs in a child: the seed that failed, how many calls there were, and the output."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--driver", options.driver]
    command += ["--threads", str(options.threads)]
    done = subprocess.run(
        [*command, "--one", str(seed), *more],
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    calls = sum(int(words[1]) for words in lines if words[0] == "calls")
    began = [int(words[0]) for words in lines if words[0] != "calls"]
    failed = began[-1] if done.returncode and began else None
    if done.returncode and not began:
        raise RuntimeError(done.stderr)
    return failed, calls, f"ended with {done.returncode}\n{done.stderr}"


def shrink(options: argparse.Namespace, seed: int) -> str:
    """Leave out as many steps as possible, half of them at a time, then fewer."""
    kept, size = list(range(STEPS)), STEPS // 2
    end = time.monotonic() + options.shrink

    def fails(some: list[int]) -> bool:
        without = ",".join(str(number) for number in range(STEPS) if number not in some)
        return run_child(options, seed, "--without", without)[0] is not None

    if not fails(kept):
        return "it does not fail alone"
    while size and time.monotonic() < end:
        start = 0
        while start < len(kept) and time.monotonic() < end:
            fewer = kept[:start] + kept[start + size :]
            if fails(fewer):
                kept = fewer
            else:
                start += size
        size //= 2
    without = ",".join(str(number) for number in range(STEPS) if number not in kept)
    return f"--one {seed} --threads {options.threads} --verbose --without {without}"


def drive(options: argparse.Namespace) -> int:
    """Run programs in children until the time is over."""
    seed, calls = options.seed, 0
    faults: list[int] = []
    programs = options.programs or 1 << 40
    end = time.monotonic() + (1e9 if options.programs else options.seconds)
    print(f"seed {seed}", flush=True)
    while seed < options.seed + programs and time.monotonic() < end and len(faults) < 5:
        count = min(PROGRAMS, options.seed + programs - seed)
        failed, made, output = run_child(options, seed, "--count", str(count))
        calls += made
        if failed is None:
            seed += count
            continue
        faults.append(failed)
        print(f"fault: --one {failed}\n{output[-6000:]}\n{shrink(options, failed)}", flush=True)
        seed = failed + 1
    result = {"programs": seed - options.seed, "calls": calls, "faults": faults}
    print(json.dumps(result))
    return bool(faults)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 40))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--programs", type=int, help="so many in place of some seconds")
    parser.add_argument("--shrink", type=float, default=60, help="seconds")
    parser.add_argument("--one", type=int, metavar="SEED", help="this program, in this process")
    parser.add_argument("--count", type=int, default=1, help="so many from there on")
    parser.add_argument("--without", default="", help="steps to leave out")
    parser.add_argument("--verbose", action="store_true", help="print each call before it is made")
    parser.add_argument("--driver", help="driver.c, compiled already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.driver = options.driver or compile_driver(folder)
        if options.one is not None:
            return run_here(options, range(options.one, options.one + options.count))
        return drive(options)


if __name__ == "__main__":
    sys.exit(main())
