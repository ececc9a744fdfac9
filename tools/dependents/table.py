"""The tables in docs/internals/ledger.md: the suites of dependents, their loads, what tools show.

They are made from tests/interop/results. Explanations of differences are written by hand, in
explanations.toml there: for tests that match a pattern, of suites that match one, on interpreters
that match one. The table says of other differences that they are unexplained.
"""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import groupby

from suites import CHECKOUT

from . import load, results, seeing
from .catalog import SUITES
from .environment import SIDES
from .results import Letters, Results
from .running import FAILED, PASSED

PAGE = CHECKOUT / "docs" / "internals" / "ledger.md"
HEAD = """\
| dependent | version | CPython | runs | tests | passed, published | passed, ours | fail only with \
the published | fail only with ours | flaky |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
EXPLANATIONS = tomllib.loads((results.FOLDER / "explanations.toml").read_text(encoding="utf-8"))
KINDS = {
    "failing with ours": "fail with ours in every run, and pass with the published",
    "failing with the published": "fail with the published in every run, and pass with ours",
    "flaky": "fail in some runs",
}


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _row(suite: str, found: Results) -> str:
    if found.unavailable:
        return f"| {suite} | | {found.interpreter} | 0 | {found.unavailable} | | | | | |"
    tests = sum(found.always.values()) + len(found.tests)
    passed = [_span([run[PASSED] for run in found.counts[side]]) for side in SIDES]
    kinds = ("failing with the published", "failing with ours", "flaky")
    counts = [str(len(found.of_kind(kind))) for kind in kinds]
    cells = [suite, found.version, found.python, str(found.runs), str(tests), *passed, *counts]
    return f"| {' | '.join(cells)} |"


def _explanation(found: Results, test: str, kind: str) -> str:
    """Return what was written by hand about a difference."""
    where = {"suites": found.suite, "interpreters": found.interpreter}
    facts = where | {"tests": test, "kinds": kind}
    for entry in EXPLANATIONS["explanation"]:
        if all(
            any(fnmatchcase(fact, pattern) for pattern in entry.get(key, ["*"]))
            for key, fact in facts.items()
        ):
            return str(entry["text"])
    return "unexplained"


def _listed(found: Results, kind: str) -> Iterator[str]:
    """List the tests of a kind, those with the same explanation together."""

    def text(item: tuple[str, Letters]) -> str:
        return _explanation(found, item[0], kind)

    for explanation, group in groupby(sorted(found.of_kind(kind).items(), key=text), key=text):
        yield f"  - {explanation}:"
        for test, how in group:
            counts = ""
            if kind == "flaky":
                times = [f"{letters.count(FAILED)} of {len(letters)}" for letters in how]
                counts = f", failed in {times[0]} with the published, {times[1]} with ours"
            yield f"    - `{test}`{counts}"


def _table() -> str:
    """Return the table, and the differences one by one."""
    kept = list(results.everything())
    named = [(each.name, found) for each in SUITES for found in kept if found.suite == each.slug]
    lines = [HEAD, *(_row(name, found) for name, found in named), ""]
    for name, found in named:
        told = [
            line
            for kind, says in KINDS.items()
            if found.of_kind(kind)
            for line in (f"- {says}:", *_listed(found, kind))
        ]
        if told:
            lines += [f"### {name} on {found.interpreter}", "", *told, ""]
    return "\n".join(lines)


def update() -> None:
    """Write the tables into the page, between their markers."""
    text = PAGE.read_text(encoding="utf-8")
    tables = {"interop": _table(), "load": load.table(), "tools": seeing.table()}
    for what, generated in tables.items():
        before, start, _, end, rest = re.split(rf"(<!-- {what}: .* -->)", text)
        text = f"{before}{start}\n\n{generated}\n{end}{rest}"
    PAGE.write_text(text, encoding="utf-8")
