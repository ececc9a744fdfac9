#!/usr/bin/env python3
"""Our greenlet against the published one: the same interpreter, the same run, in turn.

    python benchmarks/compare.py --ours PYTHON --published PYTHON [--quick] [NAME ...]

The two PYTHONs are those of two environments of one interpreter, each with `pyperf` and a
`greenlet`. Each benchmark runs in rounds; in each round a fresh process measures the published one
and then another measures ours, so that what disturbs the machine for a while disturbs both. What
counts is the ratio of the two in a round, and of all rounds the median. The exit status is 1 if a
ratio misses its bar.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pyperf

FOLDER = Path(__file__).parent

ROUNDS = 9
QUICK_ROUNDS = 3

# A greenlet's memory is measured with so many of them.
SUSPENDED = 20_000


class Benchmark(NamedTuple):
    """A row of the table: what is measured, and what ours may take of the published one's."""

    title: str
    bar: float | None = None


TIMES = {
    "call": Benchmark("a C call, for scale"),
    "switch": Benchmark("switch", 1 / 4),
    "switch_value": Benchmark("switch with a value", 1 / 4),
    "create": Benchmark("create, run, finish", 1 / 10),
    "deep_1": Benchmark("switch, 1 C call deep"),
    "deep_10": Benchmark("switch, 10 C calls deep"),
    "deep_50": Benchmark("switch, 50 C calls deep", 1 / 20),
}
MEMORY = {
    "resident": Benchmark("resident, suspended", 0.9),
    "page_table": Benchmark("page tables, suspended"),
}
# The cost of a switch must not depend on the depth: ours against ours.
DEPTH = Benchmark("ours, by depth", 1.5)


class Python(NamedTuple):
    """An interpreter with a greenlet in it."""

    side: str
    executable: str
    greenlet: str  # its version
    interpreter: str

    @classmethod
    def inspect(cls, side: str, executable: str) -> Python:
        code = "import greenlet, pyperf, sys; print(greenlet.__version__); print(sys.version)"
        # Not in the folder of this file, nor in one where a `greenlet` could be found by accident.
        command = [executable, "-P", "-c", code]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise SystemExit(f"{executable} needs greenlet and pyperf:\n{found.stderr}")
        version, _, interpreter = found.stdout.strip().partition("\n")
        return cls(side, executable, version, interpreter)

    def run(self, program: str, *arguments: str) -> str:
        command = [self.executable, str(FOLDER / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


# By side, then by name: the values of each round.
Rounds = dict[str, dict[str, list[pyperf.Run]]]


def time_once(python: Python, name: str, options: Sequence[str]) -> dict[str, pyperf.Run]:
    """What one process of pyperf's measures."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder, "result.json"))
        python.run("workloads.py", *options, "--quiet", "--processes=1", "--output", output, name)
        # The last run is the one with values; one before it finds out how many loops to make.
        return {name: pyperf.Benchmark.load(output).get_runs()[-1]}


def weigh_once(python: Python) -> dict[str, pyperf.Run]:
    """Resident memory and page tables of a suspended greenlet, in bytes."""
    measured = json.loads(python.run("suspended.py", f"--count={SUSPENDED}", "--json"))
    return {
        # pyperf takes no zero: less than a byte counts as one.
        name: pyperf.Run(
            [max(1.0, measured[f"{name}_bytes"])], metadata={"name": name, "unit": "byte"}
        )
        for name in MEMORY
    }


def measure(pythons: Sequence[Python], names: Sequence[str], quick: bool) -> Rounds:
    """Benchmark after benchmark, and within each round the sides in turn."""
    options = ["--values=3", "--min-time=0.02"] if quick else ["--values=5", "--min-time=0.05"]
    rounds: Rounds = {python.side: defaultdict(list) for python in pythons}
    for done, name in enumerate(names):
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            if sys.stderr.isatty():
                line = f"{done + 1} of {len(names)}: {name}, round {number + 1}"
                print(f"\r{line:<60}", end="\r", file=sys.stderr, flush=True)
            for python in pythons:
                runs = weigh_once(python) if name == "memory" else time_once(python, name, options)
                for part, run in runs.items():
                    rounds[python.side][part].append(run)
    return rounds


def keep(rounds: Rounds, pythons: Sequence[Python]) -> list[Path]:
    """Save what was measured as pyperf files, one for each side."""
    folder = FOLDER / "results"
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    paths = []
    for python in pythons:
        suite = pyperf.BenchmarkSuite([pyperf.Benchmark(r) for r in rounds[python.side].values()])
        for benchmark in suite:
            benchmark.update_metadata({"greenlet_version": python.greenlet})
        paths.append(folder / f"{stamp}-{python.side}-{python.greenlet}.json")
        suite.dump(str(paths[-1]))
    return paths


class Ratio(NamedTuple):
    """Of two series measured in the same rounds: the median of the ratios, and their extremes."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, ours: Sequence[pyperf.Run], theirs: Sequence[pyperf.Run]) -> Ratio:
        ratios = [median(a.values) / median(b.values) for a, b in zip(ours, theirs, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))


def report(rounds: Rounds) -> bool:
    """Print the table; return whether all bars are met."""
    published, ours = rounds["published"], rounds["ours"]
    print(f"{'':<26}{'published':>12}{'ours':>12}   {'ratio (spread)':<27}{'bar':>8}")
    rows = [
        print_row(benchmark, ours[name], published[name])
        for name, benchmark in (TIMES | MEMORY).items()
        if name in ours
    ]
    if "deep_1" in ours and "deep_50" in ours:
        print(f"{'':<26}{'1 deep':>12}{'50 deep':>12}")
        rows.append(print_row(DEPTH, ours["deep_50"], ours["deep_1"]))
    return all(rows)


def print_row(
    benchmark: Benchmark, runs: Sequence[pyperf.Run], reference: Sequence[pyperf.Run]
) -> bool:
    """Print a line of the table; return whether the bar is met."""
    ratio = Ratio.of(runs, reference)
    spread = f"{ratio.median:.3g} ({ratio.lowest:.3g} to {ratio.highest:.3g})"
    line = f"{benchmark.title:<26}{show(reference):>12}{show(runs):>12}   {spread:<27}"
    met = True
    if benchmark.bar is not None:
        met = ratio.median <= benchmark.bar
        line += f"{f'<= {benchmark.bar:g}':>8}  {'pass' if met else 'FAIL'}"
    print(line.rstrip())
    return met


def show(runs: Sequence[pyperf.Run]) -> str:
    """The median of the rounds, with its unit."""
    middle = median(median(run.values) for run in runs)
    if runs[0].get_metadata().get("unit") == "byte":
        return f"{middle:,.0f} B"
    return f"{middle * 1e9:,.1f} ns"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Our greenlet against the published one: same interpreter, same run, in turn."
    )
    parser.add_argument("--ours", required=True, metavar="PYTHON")
    parser.add_argument("--published", required=True, metavar="PYTHON")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    names = [*TIMES, "memory"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    published = Python.inspect("published", options.published)
    ours = Python.inspect("ours", options.ours)
    if ours.interpreter != published.interpreter:
        parser.error(f"two interpreters: {ours.interpreter!r} and {published.interpreter!r}")
    rounds = measure((published, ours), options.names or names, options.quick)
    paths = keep(rounds, (published, ours))

    print(f"CPython {ours.interpreter}")
    print(f"greenlet {published.greenlet} (published) and {ours.greenlet} (ours)")
    met = report(rounds)
    print("kept in", *(path.relative_to(FOLDER.parent) for path in paths))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
