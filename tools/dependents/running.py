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
# A test that takes longer than its limit ends the process, and an attempt more runs the rest.
PYTEST = (
    *("-m", "pytest", "-p", "sitecustomize", "-p", "no:cacheprovider"),
    *("-q", "--timeout=120", "--timeout-method=thread"),
)
ATTEMPTS = 25
# There is no network here. Each module gets a process of its own, so that one that crashes takes no
# other with it.
GEVENT = ("-m", "gevent.tests", "-u", "all,-network", "--no-combine", "-j", "2")

PASSED, FAILED, SKIPPED = "P", "F", "S"
# A test's events, the worse one last: it counts. What only started was ended with its process.
LETTERS = {"started": FAILED, "skipped": SKIPPED, "passed": PASSED, "failed": FAILED}
RANKS = list(LETTERS)


def run(suite: Suite, pair: Pair, side: str, name: str) -> dict[str, str]:
    """Run the suite on one side; return PASSED, FAILED or SKIPPED for each test."""
    python = pair.pythons[side]
    label = f"{suite.slug}-{name}-{side}"
    folder = CHECKOUT
    if "tests/interop/" not in suite.pytest:
        folder = WORK / label
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if suite.pytest:
            environment.source(pair, suite.package, folder)
    LOGS.mkdir(parents=True, exist_ok=True)
    log, record, done = (LOGS / f"{label}.{kind}" for kind in ("log", "record", "done"))
    log.write_text("")
    record.write_text("")
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
    arguments = (*PYTEST, *suite.pytest.split()) if suite.pytest else GEVENT
    deadline = time.monotonic() + suite.minutes * 60
    events: dict[str, str] = {}
    for _ in range(ATTEMPTS if suite.pytest else 1):
        before = len(events)
        shutil.copy(record, done)
        limit = max(1, deadline - time.monotonic())
        command = (str(python), *arguments)
        code = suites.run(
            command, log, echo=False, limit=limit, folder=folder, environment=settings
        )
        events = _read(record)
        # 0: all passed, 1: some failed, or pytest-timeout ended the process, 5: nothing was left.
        ended = code in (0, 1, 5) and "started" not in events.values()
        if ended or len(events) == before or time.monotonic() > deadline:
            break
    outcomes = {test: LETTERS[event] for test, event in events.items()}
    if time.monotonic() > deadline:
        outcomes["(the suite comes to its end in time)"] = FAILED
    return outcomes if suite.pytest else outcomes | _gevent_modules(log)


def _read(record: Path) -> dict[str, str]:
    """Return the worst event of each test that the recorder wrote down."""
    worst: dict[str, str] = {}
    for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
        event, _, test = line.partition("\t")
        if event in RANKS and RANKS.index(event) >= RANKS.index(worst.get(test, "started")):
            worst[test] = event
    return worst


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
