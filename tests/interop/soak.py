"""Programs on gevent, SQLAlchemy and the echo server, side by side for MINUTES, killed at random.

    python soak.py [--minutes N] [--seed N] [PROGRAM...]

Each prints every two seconds what it uses. The first half of the time is the warm-up. In the second
half nothing may grow: the growth of a figure is the slope of a robust line through its samples
(Theil and Sen), times the duration of that half. BOUNDS says how much of it chance may make.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, NamedTuple

import pytest
from environment import PROGRAMS, Environment, make_environment

NAMES = ("gevent", "sqlalchemy", "echo")
REQUIREMENTS = {"gevent": ("gevent",), "sqlalchemy": ("sqlalchemy[asyncio]>=2", "aiosqlite")}
# What a figure may grow by in the second half: a part of its median, or this much if that is more.
BOUNDS = {
    # New connections and threads of aiosqlite leave the C allocator with a little more each time;
    # with the published greenlet, too. A page for each kill would be more than this.
    "resident KiB": (0.05, 1024.0),
    "regions in use": (0.1, 8.0),
    "regions reserved": (0.1, 64.0),  # they are reserved in batches of 64
    "descriptors": (0.1, 16.0),
    "threads": (0.1, 2.0),
    "objects": (0.05, 2000.0),
}
PATIENCE = 180.0  # seconds that a program may take to start and to end
MOST_SAMPLES = 400  # of a half: the line takes the square of that

Sample = dict[str, float]


class Growth(NamedTuple):
    """How a figure went in the second half."""

    median: float
    least: float
    most: float
    growth: float
    bound: float


def slope(samples: list[Sample], name: str) -> float:
    """Return the median of the slopes between all pairs of samples, per second."""
    chosen = samples[:: len(samples) // MOST_SAMPLES + 1]
    slopes = [
        (b[name] - a[name]) / (b["seconds"] - a["seconds"])
        for number, a in enumerate(chosen)
        for b in chosen[number + 1 :]
    ]
    return statistics.median(slopes)


def measure(samples: list[Sample], name: str) -> Growth:
    """Return how a figure went."""
    values = [sample[name] for sample in samples]
    median = statistics.median(values)
    part, least = BOUNDS[name]
    duration = samples[-1]["seconds"] - samples[0]["seconds"]
    growth = slope(samples, name) * duration
    return Growth(median, min(values), max(values), growth, max(part * median, least))


class Run:
    """One program, while it runs, and what it has printed."""

    def __init__(self, name: str, environment: Environment, seconds: float, seed: int) -> None:
        self.name = name
        self.output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        program = PROGRAMS / f"soak_{name}.py"
        command = [environment.python, "-X", "faulthandler", program, str(seconds), str(seed)]
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self.output, stderr=self.errors
        )

    def wait(self, end: float) -> list[str]:
        """Wait until it has ended; return what was wrong."""
        try:
            code = self.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.send_signal(6)  # faulthandler says where it was
            code = self.process.wait()
        self.errors.seek(0)
        complaints = self.errors.read()
        return [f"ended with {code}:\n{complaints[:5000]}"] if code or complaints else []

    def judge(self) -> list[str]:
        """Print the table of what it used; return what has grown."""
        self.output.seek(0)
        lines = [line for line in self.output if line.startswith("{")]
        samples: list[Sample] = [json.loads(line) for line in lines][:-1]  # the last is of its end
        half = [sample for sample in samples if sample["seconds"] > samples[-1]["seconds"] / 2]
        if len(half) < 10:
            return ["has run too short to be judged"]
        last: dict[str, Any] = samples[-1]
        print(
            f"\n{self.name}: {last['seconds'] / 60:.1f} minutes, {last['done']:,} steps, "
            f"{last['kills']:,} kills, {last['collections']:,} collections"
        )
        print(f"  {'second half':<18}{'median':>12}{'least':>12}{'most':>12}{'growth':>10}  bound")
        grown = []
        for name in BOUNDS:
            figure = measure(half, name)
            print(
                f"  {name:<18}{figure.median:>12,.0f}{figure.least:>12,.0f}{figure.most:>12,.0f}"
                f"{figure.growth:>+10,.1f}  {figure.bound:,.0f}"
            )
            if figure.growth > figure.bound:
                grown.append(f"{name} have grown by {figure.growth:,.1f} in the second half")
        return grown


def main() -> int:
    parser = argparse.ArgumentParser(description="Long runs in which nothing may grow.")
    parser.add_argument("programs", nargs="*", default=NAMES, metavar="PROGRAM")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    needed = [one for name in options.programs for one in REQUIREMENTS.get(name, ())]
    try:
        environment = make_environment("soak", *needed)
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    print(f"seed {options.seed}, {options.minutes:g} minutes, {environment.python}", flush=True)
    seconds = options.minutes * 60
    runs = [Run(name, environment, seconds, options.seed) for name in options.programs]
    end = time.monotonic() + seconds + PATIENCE
    faults = []
    for run in runs:
        found = run.wait(end) + run.judge()
        faults += [f"{run.name}: {text}" for text in found]
    print("", *faults or ["nothing has grown"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
