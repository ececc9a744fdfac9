"""Run the suites of programs that depend on greenlet, with the published one and with ours.

Two environments differ in the greenlet alone. How each test went is compared and kept in
tests/interop/results, and docs/internals/ledger.md gets a table of it. `make interop` fails if a
test passes with the published greenlet and fails with ours in every run so far; with RUNS=0 it only
generates the table again. No known tool compares two environments test by test, over suites of
others that crash and hang. Earlier runs are remembered in build/dependents, environments are kept
in .venvs/dependents: remove them to begin afresh. The rooms of dependents/:

    catalog.toml    what is run: each suite's packages, command and limits
    environment.py  two environments that differ in the greenlet alone; source distributions
    running.py      one suite on one side, to its end or to its time limit
    recorder/       what is put on PYTHONPATH of a suite, to write down how each test went
    results.py      how tests went over runs, kept as JSON in tests/interop/results
    load.py         how fast fixed loads run, kept there, too
    seeing.py       what profilers and debuggers show, kept there, too
    table.py        the tables in docs/internals/ledger.md, generated from these
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import environments
import interpreters
from dependents import environment, load, results, running, table
from dependents.catalog import LOADS, SUITES, Suite
from dependents.environment import SIDES
from dependents.results import Results
from environments import Unavailable

# Where the suites are run; 3.12 lies between two others.
INTERPRETERS = ("3.11", "3.13", "3.14", "3.14t", "3.15", "3.15t")
FULL_VERSION = "import platform, sys; print(platform.python_version() + sys.abiflags)"


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def _reason(error: Unavailable) -> str:
    """Return what the table says of a suite that could not be installed: pip's last error."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith(("ERROR:", "error:"))]
    return (told or lines)[-1].removeprefix("ERROR:").strip().replace("|", "/")[:160]


def _run(suite: Suite, name: str, base: Path) -> None:
    """Run a suite on both sides once, and keep how it went."""
    try:
        runner = " pytest pytest-timeout" if suite.pytest else ""
        pair = environment.make(name, base, suite.requirements + runner)
    except Unavailable as error:
        _say(f"{suite.slug} on {name}: not installable\n{error}")
        return Results(suite.slug, name, unavailable=_reason(error)).write()
    version = pair.versions[suite.package]
    outcomes = {}
    for side in SIDES:
        started = time.monotonic()
        outcomes[side] = running.run(suite, pair, side, name)
        counts = dict(Counter(outcomes[side].values()))
        seconds = time.monotonic() - started
        _say(f"{suite.slug} {version} on {name}, {side}: {counts} in {seconds:.0f} s")
    python = environments.run(base, "-I", "-c", FULL_VERSION).strip()
    found = Results(suite.slug, name, python, version, pair.greenlets)
    found.add(outcomes)
    found.write()
    for kind in table.KINDS:
        for test, how in found.of_kind(kind).items():
            print(f"  {kind}: {test} ({how.published} {how.ours})", flush=True)


def _chosen(words: Iterable[str], known: list[str]) -> list[str]:
    if unknown := set(words) - set(known):
        sys.exit(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    return [each for each in known if each in words] or known


def run(runs: int, names: Iterable[str], slugs: Iterable[str]) -> list[str]:
    """Run suites so many times; return what fails with ours alone."""
    chosen = _chosen(slugs, [suite.slug for suite in SUITES])
    found = interpreters.provide(names or INTERPRETERS) if runs else {}
    for suite in [suite for suite in SUITES if suite.slug in chosen] * runs:
        for name, base in found.items():
            _run(suite, name, base)
    table.update()
    return [
        f"{found.suite} on {found.interpreter}: {test}"
        for found in results.everything()
        for test in found.of_kind("failing with ours")
    ]


def measure(name: str, slugs: Iterable[str]) -> None:
    """Compare fixed loads on an interpreter, on a quiet machine."""
    known = [slug for each in LOADS for slug in load.slugs(each)]
    for line in load.measure(name, environments.base(name), 3, _chosen(slugs, known)):
        _say(f"{name}: {line}")
    table.update()
