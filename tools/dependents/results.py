"""How the tests of a suite went over the runs of both sides.

Each run is kept in build/dependents/runs, with the outcome of every test. What all runs say
together is kept in tests/interop/results, one file for each suite and interpreter: a test that went
the same way in every run of both sides, and did not fail, is only counted there; any other is kept
by its name, with a letter for each run: P passed, F failed, S skipped, - not there.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from suites import CHECKOUT

from .environment import SIDES
from .running import FAILED

FOLDER = CHECKOUT / "tests" / "interop" / "results"
RUNS = CHECKOUT / "build" / "dependents" / "runs"


class Letters(NamedTuple):
    """How one test went, a letter for each run of a side."""

    published: str
    ours: str

    @property
    def kind(self) -> str:
        """What they say about the two greenlets.

        `failing with ours` and `failing with the published` are those that each run showed; `flaky`
        are those of which a side has seen both a pass and a failure.
        """
        published, ours = map(set, self)
        if published == ours and len(ours) == 1:
            return "same"
        if any(FAILED in seen and len(seen) > 1 for seen in (published, ours)):
            return "flaky"
        if FAILED in ours:
            return "failing with ours"
        if FAILED in published:
            return "failing with the published"
        return "not run alike"  # skipped or absent in some runs, never failed


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
        return {test: how for test, how in self.tests.items() if how.kind == kind}

    def add(self, run: dict[str, dict[str, str]]) -> None:
        """Sum up this run, by side and test, with the earlier ones of the same releases."""
        file = RUNS / f"{self.suite}-{self.interpreter}.json"
        releases = [self.python, self.version, self.greenlets]
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        runs = [*(kept["runs"] if kept.get("releases") == releases else []), run]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"releases": releases, "runs": runs}), encoding="utf-8")
        always: Counter[str] = Counter()
        for test in sorted({test for run in runs for side in SIDES for test in run[side]}):
            how = Letters(*("".join(run[side].get(test, "-") for run in runs) for side in SIDES))
            if how.kind == "same" and how.ours[0] != FAILED:
                always[how.ours[0]] += 1
            else:
                self.tests[test] = how
        self.runs = len(runs)
        self.always = dict(sorted(always.items()))
        for side in SIDES:
            counts = [Counter(run[side].values()) for run in runs]
            self.counts[side] = [{letter: count[letter] for letter in "PFS"} for count in counts]

    def write(self) -> None:
        """Write the file, one line for each test."""
        data = asdict(self)
        tests = data.pop("tests")
        head = json.dumps(data, indent=1).removesuffix("\n}")
        lines = [f"  {json.dumps(test)}: {json.dumps(how)}" for test, how in tests.items()]
        body = "{\n" + ",\n".join(lines) + "\n }" if lines else "{}"
        file = FOLDER / f"{self.suite}-{self.interpreter}.json"
        file.write_text(f'{head},\n "tests": {body}\n}}\n', encoding="utf-8")


def everything() -> Iterator[Results]:
    """Read all files of results."""
    for file in sorted(FOLDER.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        data["tests"] = {test: Letters(*how) for test, how in data["tests"].items()}
        yield Results(**data)
