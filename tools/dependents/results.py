"""How the tests of a suite went over the runs of both sides.

Each run is kept in build/dependents/runs, with the outcome of every test. What all runs say
together is kept in tests/interop/results, one file for each suite and interpreter: a test that went
the same way in every run of both sides, and did not fail, is only counted there; any other is kept
by its name, with a letter for each run: P passed, F failed, S skipped, - not there.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from suites import CHECKOUT

from .environment import SIDES
from .running import FAILED, PASSED, SKIPPED

FOLDER = CHECKOUT / "tests" / "interop" / "results"
RUNS = CHECKOUT / "build" / "dependents" / "runs"
ABSENT = "-"


class Letters(NamedTuple):
    """How one test went, a letter for each run of a side."""

    published: str
    ours: str


@dataclass
class Results:
    """The runs of a suite on an interpreter."""

    suite: str
    interpreter: str
    python: str = ""  # the interpreter's full version
    version: str = ""  # the dependent's
    greenlets: dict[str, str] = field(default_factory=dict)
    unavailable: str = ""  # why it could not be run, if so
    runs: int = 0
    always: dict[str, int] = field(default_factory=dict)  # tests with the same letter everywhere
    counts: dict[str, list[dict[str, int]]] = field(default_factory=dict)  # by side and run
    tests: dict[str, Letters] = field(default_factory=dict)  # all others

    def of_kind(self, kind: str) -> dict[str, Letters]:
        """Return the tests that differ in this way."""
        return {test: how for test, how in self.tests.items() if difference(how) == kind}


@dataclass
class Run:
    """One run of both sides, with the outcome of every test."""

    suite: str
    interpreter: str
    python: str
    version: str
    greenlets: dict[str, str]
    outcomes: dict[str, dict[str, str]]  # side, then test, to its letter


def keep(run: Run) -> list[Run]:
    """Add a run to those of the same releases; return them all. Those of others are removed."""
    folder = RUNS / f"{run.suite}-{run.interpreter}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for file in sorted(folder.glob("*.json")):
        old = Run(**json.loads(file.read_text(encoding="utf-8")))
        if (old.python, old.version, old.greenlets) == (run.python, run.version, run.greenlets):
            kept.append(old)
        else:
            file.unlink()
    new = folder / f"{time.time_ns()}.json"
    new.write_text(json.dumps(asdict(run), indent=0), encoding="utf-8")
    return [*kept, run]


def difference(how: Letters) -> str:
    """Say what a test's letters say about the two greenlets.

    `failing with ours` and `failing with the published` are those that each run showed; `flaky` are
    those of which a side has seen both a pass and a failure.
    """
    seen = Letters(*("".join(sorted(set(letters))) for letters in how))
    if seen.published == seen.ours and len(seen.ours) == 1:
        return "same"
    for letters in seen:
        if FAILED in letters and len(letters) > 1:
            return "flaky"
    if seen.ours == FAILED:
        return "failing with ours"
    if seen.published == FAILED:
        return "failing with the published"
    return "not run alike"  # skipped or absent in some runs, never failed


def path(suite: str, interpreter: str) -> Path:
    """Where the results of a suite are kept."""
    return FOLDER / f"{suite}-{interpreter}.json"


def read(file: Path) -> Results:
    """Read a file of results."""
    data = json.loads(file.read_text(encoding="utf-8"))
    data["tests"] = {test: Letters(*how) for test, how in data["tests"].items()}
    return Results(**data)


def write(file: Path, results: Results) -> None:
    """Write a file of results, one line for each test."""
    results.tests = dict(sorted(results.tests.items()))
    data = asdict(results)
    tests = data.pop("tests")
    head = json.dumps(data, indent=1).removesuffix("\n}")
    lines = [f"  {json.dumps(test)}: {json.dumps(how)}" for test, how in tests.items()]
    body = "{\n" + ",\n".join(lines) + "\n }" if lines else "{}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{head},\n "tests": {body}\n}}\n', encoding="utf-8")


def digest(runs: list[Run]) -> Results:
    """Say what the runs of a suite on an interpreter say together."""
    last = runs[-1]
    results = Results(
        *(last.suite, last.interpreter, last.python, last.version, last.greenlets),
        runs=len(runs),
    )
    always: Counter[str] = Counter()
    for test in {test for run in runs for side in SIDES for test in run.outcomes[side]}:
        how = Letters(
            *("".join(run.outcomes[side].get(test, ABSENT) for run in runs) for side in SIDES)
        )
        if difference(how) == "same" and how.ours[0] != FAILED:
            always[how.ours[0]] += 1
        else:
            results.tests[test] = how
    results.always = dict(sorted(always.items()))
    for side in SIDES:
        counts = [Counter(run.outcomes[side].values()) for run in runs]
        results.counts[side] = [
            {letter: count[letter] for letter in (PASSED, FAILED, SKIPPED)} for count in counts
        ]
    return results


def everything() -> Iterator[Results]:
    """Read all files of results."""
    for file in sorted(FOLDER.glob("*.json")):
        yield read(file)
