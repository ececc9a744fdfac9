#!/usr/bin/env python3
"""Our greenlet against the published one: the same interpreter, the same run, in turn.

    python benchmarks/compare.py --ours PYTHON --published PYTHON [--quick] [--json F] [GROUP ...]

The two PYTHONs are those of two environments of one interpreter, each with `pyperf` and a
`greenlet`. Each group of measurements runs in rounds; in each round a fresh process measures the
published one and then another measures ours, so that what disturbs the machine for a while disturbs
both. What counts is the ratio of the two in a round, and of all rounds the median. The exit status
is 1 if a ratio misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyperf
from bars import OURS, PEERS, PUBLISHED, QUANTITIES, Row, peer_rows, rows

FOLDER = Path(__file__).parent

ALIVE = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)


class Python(NamedTuple):
    """An interpreter with a greenlet in it."""

    side: str
    executable: str
    greenlet: str  # its version
    interpreter: str
    free_threaded: bool
    has_gevent: bool

    @classmethod
    def inspect(cls, side: str, executable: str) -> Python:
        code = """
import importlib.util, json, greenlet, pyperf, sys, sysconfig
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
has_gevent = importlib.util.find_spec("gevent") is not None
print(json.dumps([greenlet.__version__, sys.version, free_threaded, has_gevent]))
"""
        # Not in the folder of this file, nor in one where a `greenlet` could be found by accident.
        command = [executable, "-P", "-c", code]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise SystemExit(f"{executable} needs greenlet and pyperf:\n{found.stderr}")
        version, interpreter, free_threaded, has_gevent = json.loads(found.stdout)
        return cls(side, executable, version, interpreter, free_threaded, has_gevent)

    def run(self, program: str, *arguments: str) -> str:
        command = [self.executable, str(FOLDER / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


# --- groups of measurements, each a function of an interpreter that runs one process there ------

Measure = Callable[[Python], dict[str, float]]


def workload(name: str, quick: bool) -> Measure:
    """One of workloads.py: pyperf finds the number of loops, warms up and takes five values."""
    options = ["--values=3", "--min-time=0.02"] if quick else ["--values=5", "--min-time=0.05"]

    def measure(python: Python) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            output = str(Path(folder, "result.json"))
            inherited = ["--inherit-environ=PYTHON_GIL"] if python.free_threaded else []
            python.run(
                "workloads.py",
                *(*options, *inherited, "--quiet", "--processes=1", "--output", output, name),
            )
            return {name: median(pyperf.Benchmark.load(output).get_runs()[-1].values)}

    return measure


def memory(what: str, count: int, prefix: str) -> Measure:
    """The time to start and to finish so many, and their memory."""

    def measure(python: Python) -> dict[str, float]:
        output = python.run("suspended.py", f"--what={what}", f"--count={count}", "--json")
        measured = json.loads(output)
        count_measured = measured["greenlets"]
        return {
            f"{prefix}_start": measured["start_seconds"] / count_measured,
            f"{prefix}_finish": measured["finish_seconds"] / count_measured,
            f"{prefix}_resident": measured["resident_bytes"],
            f"{prefix}_memory": measured["resident_bytes"] + measured["page_table_bytes"],
        }

    return measure


def alive(count: int) -> Measure:
    return lambda python: {f"alive_{count}": float(python.run("alive.py", str(count)))}


def program(name: str) -> Measure:
    """One that prints its measurements as an object."""

    def measure(python: Python) -> dict[str, float]:
        result: dict[str, float] = json.loads(python.run(name))
        return result

    return measure


class Group(NamedTuple):
    measure: Measure
    rounds: int
    quick_rounds: int = 3
    only_ours: bool = False  # what uses no greenlet need not be measured twice
    needs_gevent: bool = False


def groups(quick: bool) -> dict[str, Group]:
    from workloads import WORKLOADS

    peers = ("call", "send", "asyncio", "thread")
    barred = {name for name, quantity in QUANTITIES.items() if quantity.bar}
    barred |= {name for peer in PEERS for name in (peer.name, peer.against)}
    result = {
        name: Group(workload(name, quick), 9 if name in barred else 5, only_ours=name in peers)
        for name in WORKLOADS
    }
    result |= {
        f"alive_{count}": Group(alive(count), 3 if count >= 100_000 else 5, 1) for count in ALIVE
    }
    result |= {
        "fresh": Group(program("fresh.py"), 25),
        # Mostly the kernel clears memory here, whose speed is what others leave of it.
        "trivial": Group(memory("trivial", 100_000, "trivial"), 63, 1),
        "frames": Group(memory("frames", 20_000, "frames"), 3, 1),
        **{
            f"{what}_{depth}": Group(memory(f"{what}_{depth}", 2_000, f"{what}_{depth}"), 3, 1)
            for what in ("idle", "deepest")
            for depth in (30, 120)
        },
        "receive": Group(memory("receive", 4_000, "receive"), 3, 1, needs_gevent=True),
        "million": Group(memory("trivial", 1_000_000, "million"), 1, 0),
        "gevent": Group(program("gevent_rates.py"), 7, needs_gevent=True),
    }
    return result


# --- the run ---------------------------------------------------------------------------------


def measure(
    pythons: Sequence[Python], chosen: dict[str, Group], quick: bool
) -> dict[str, dict[str, list[float]]]:
    """Group after group, and within each round the sides in turn."""
    rounds: dict[str, dict[str, list[float]]] = {each.side: defaultdict(list) for each in pythons}
    has_gevent = all(each.has_gevent for each in pythons)
    for done, (name, group) in enumerate(chosen.items()):
        if group.needs_gevent and not has_gevent:
            print(f"no gevent on this interpreter: {name} is left out", file=sys.stderr)
            continue
        for number in range(group.quick_rounds if quick else group.rounds):
            if sys.stderr.isatty():
                line = f"{done + 1} of {len(chosen)}: {name}, round {number + 1}"
                print(f"\r{line:<60}", end="\r", file=sys.stderr, flush=True)
            for python in pythons:
                if group.only_ours and python.side != OURS:
                    continue
                for part, value in group.measure(python).items():
                    rounds[python.side][part].append(value)
    return rounds


def describe_machine() -> dict[str, str]:
    model = platform.machine()
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores, used = os.cpu_count(), len(os.sched_getaffinity(0))
    return {
        "processor": f"{model}, {cores} cores" + (f", {used} used" if used != cores else ""),
        "memory": f"{pages / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def print_table(title: str, headings: tuple[str, str], table: Sequence[Row]) -> None:
    print(f"{title:<46}{headings[0]:>12}{headings[1]:>12}   {'ratio (spread)':<29}bar")
    for row in table:
        line = f"{row.title:<46}{row.reference:>12}{row.ours:>12}   "
        print(f"{line}{row.ratio or ''!s:<29}{row.verdict}".rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Our greenlet against the published one: same interpreter, same run, in turn."
    )
    parser.add_argument("--ours", required=True, metavar="PYTHON")
    parser.add_argument("--published", required=True, metavar="PYTHON")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep what is measured")
    parser.add_argument("names", nargs="*", metavar="GROUP", help=", ".join(groups(False)))
    options = parser.parse_args()
    available = groups(options.quick)
    if unknown := set(options.names) - set(available):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")

    published = Python.inspect(PUBLISHED, options.published)
    ours = Python.inspect(OURS, options.ours)
    if ours.interpreter != published.interpreter:
        parser.error(f"two interpreters: {ours.interpreter!r} and {published.interpreter!r}")
    if ours.free_threaded:
        os.environ["PYTHON_GIL"] = "0"  # the published greenlet may ask for it when imported
    chosen = {name: available[name] for name in options.names or available}
    rounds = measure((published, ours), chosen, options.quick)
    kept = options.json or FOLDER / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "interpreter": ours.interpreter,
        "free_threaded": ours.free_threaded,
        "greenlet": {PUBLISHED: published.greenlet, OURS: ours.greenlet},
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
    }
    if options.names and kept.exists():  # these groups anew, the others as they were
        old = json.loads(kept.read_text())
        if all(old[key] == result[key] for key in ("interpreter", "greenlet")):
            result["rounds"] = {side: old["rounds"][side] | rounds[side] for side in rounds}
    kept.write_text(json.dumps(result, indent=1) + "\n")

    print(f"CPython {ours.interpreter}")
    print(f"greenlet {published.greenlet} (published) and {ours.greenlet} (ours)")
    table, peers = rows(rounds), peer_rows(rounds)
    print_table("", ("published", "ours"), table)
    if peers:
        print()
        print_table("ours / another thing in the same run", ("the other", "ours"), peers)
    print(f"kept in {kept}")
    return 0 if all(row.met for row in (*table, *peers)) else 1


if __name__ == "__main__":
    sys.exit(main())
