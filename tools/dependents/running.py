"""One suite on one side: run it to its end, or to its time limit, and read how each test went."""

import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import suites
from suites import CHECKOUT

from . import environment
from .catalog import Suite
from .environment import Pair

LOGS = CHECKOUT / "build" / "dependents" / "logs"
# Not below the checkout, or pytest would take our settings for suites that have none of their own.
WORK = Path(tempfile.gettempdir()) / f"greenlet-dependents-{os.getuid()}"
RECORDER = Path(__file__).parent / "recorder"
ATTEMPTS = 25  # of a pytest that crashes or runs into a time limit in the middle

PASSED, FAILED, SKIPPED = "P", "F", "S"

# Two events of one test: the worse one counts.
_RANK = {"started": 0, "skipped": 1, "passed": 2, "failed": 3}
_LETTER = {"started": FAILED, "skipped": SKIPPED, "passed": PASSED, "failed": FAILED}


def run(suite: Suite, pair: Pair, side: str, name: str) -> dict[str, str]:
    """Run the suite on one side; return PASSED, FAILED or SKIPPED for each test."""
    python = pair.published if side == "published" else pair.ours
    label = f"{suite.slug}-{name}-{side}"
    folder = CHECKOUT
    if suite.source != "checkout":
        folder = WORK / label
        if suite.source == "sdist":
            environment.source(python, suite.package, pair.versions[suite.package], folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    log, record, done = (LOGS / f"{label}.{kind}" for kind in ("log", "record", "done"))
    log.write_text("")
    record.write_text("")
    done.write_text("")
    settings = {
        **suite.environment,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(RECORDER),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONNOUSERSITE": "1",
        "INTEROP_RECORD": str(record),
        "INTEROP_DONE": str(done),
        "EXPECTED_GREENLET": pair.greenlets[side],
    }
    if suite.runner == "gevent":
        settings["INTEROP_RECORD_UNITTEST"] = "1"
    deadline = time.monotonic() + suite.minutes * 60
    outcomes: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        before = len(outcomes)
        limit = max(1, deadline - time.monotonic())
        command: list[str | Path] = [python, *suite.command]
        code = suites.run(
            command, log, echo=False, limit=limit, folder=folder, environment=settings
        )
        outcomes = _read(record)
        # pytest: 0 all passed, 1 some failed, 5 nothing left to run; else it was interrupted.
        if suite.runner == "gevent" or (code in (0, 1, 5) and not _unfinished(record)):
            break
        if time.monotonic() > deadline or len(outcomes) == before:
            break
        done.write_text("".join(f"{test}\n" for test in outcomes))
    if time.monotonic() > deadline:
        outcomes["(the suite comes to its end in time)"] = FAILED
    if suite.runner == "gevent":
        outcomes |= _gevent_modules(log)
    return outcomes


def _events(record: Path) -> list[list[str]]:
    lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split("\t", 1) for line in lines if "\t" in line]


def _read(record: Path) -> dict[str, str]:
    """Read what the recorder wrote; a test that never ended has failed."""
    worst: dict[str, str] = {}
    for event, test in _events(record):
        if event in _RANK and _RANK[event] >= _RANK.get(worst.get(test, ""), -1):
            worst[test] = event
    return {test: _LETTER[event] for test, event in worst.items()}


def _unfinished(record: Path) -> bool:
    """Say whether a test of the last attempt started and did not end."""
    open_tests: set[str] = set()
    for event, test in _events(record):
        (open_tests.add if event == "started" else open_tests.discard)(test)
    return bool(open_tests)


# What gevent's runner prints of each module: `- ... -mgevent.tests.test__x [took 0.5s]`, and with
# an exclamation mark if it ended badly. Some modules are plain programs, and this is all there is
# to know of them.
_MODULE = re.compile(r"^([-!]) \S.* -m ?(?:unittest )?gevent\.tests\.(test_\w+)(?: \[|$)", re.M)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def _gevent_modules(log: Path) -> dict[str, str]:
    """Read which of gevent's test modules ended well."""
    text = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace"))
    outcomes: dict[str, str] = {}
    for sign, module in _MODULE.findall(text):
        test = f"gevent.tests.{module} (its process)"
        if outcomes.get(test) != FAILED:
            outcomes[test] = PASSED if sign == "-" else FAILED
    if not re.search(r"^Ran \d+ tests", text, re.M):
        outcomes["(the runner comes to its end)"] = FAILED
    return outcomes
