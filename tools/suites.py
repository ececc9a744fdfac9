"""Run suites of tests and count what passed and failed.

Neither nox nor pytest has what is here: a suite that crashes, or hangs in C beyond the reach of
pytest's time limits, is ended with all its children, counts as one failure, and the others go on.
What a suite prints is in build/logs.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
LOGS = CHECKOUT / "build" / "logs"
MINUTES = 20  # for one suite, if SUITE_MINUTES is not set; each test has a limit of its own
TAIL = 25  # lines of the log of a suite that failed, shown at the end
CRASHES = ("Fatal Python error:", "Timeout (")  # how the lines begin that faulthandler writes
NOISE = ("/_pytest/", "/pluggy/")  # in the lines of a stack that are not shown


class Counts(NamedTuple):
    """How the tests of a suite went."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Report:
    """The counts of all suites of this process, and what went wrong in them."""

    def __init__(self) -> None:
        self._counts: list[Counts] = []
        self._ends: list[str] = []

    @property
    def total(self) -> Counts:
        """Return the sum."""
        return Counts(*map(sum, zip(Counts(), *self._counts, strict=True)))

    def add(self, label: str, counts: Counts, log: Path | None = None) -> None:
        """Print how a suite went, and count it."""
        print(f"{label}: {counts}", flush=True)
        self._counts.append(counts)
        if counts.failed and log:
            self._ends.append(end_of(log))

    def finish(self) -> None:
        """Print what went wrong, and the counts in the last line."""
        if self._ends:
            print("What went wrong:", *self._ends, sep="\n")
        if self._counts:
            print(f"{self.total.passed} passed, {self.total.failed} failed", flush=True)


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    echo: bool = True,
    limit: float | None = None,
    folder: Path = CHECKOUT,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command, add what it prints to a log, and end what it leaves behind.

    Returns its return code, or minus the signal that ended it.
    """
    limit = limit or 60 * float(os.environ.get("SUITE_MINUTES", MINUTES))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

        def copy_output() -> None:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                if echo:
                    print(line, end="", flush=True)

        reader = threading.Thread(target=copy_output)
        reader.start()
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            file.write(f"not at its end after {limit:.0f} s\n")
            os.killpg(process.pid, signal.SIGABRT)  # faulthandler says where they are
            time.sleep(2)
        finally:
            # Also after a normal end: a child left behind would keep the pipe open for ever.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
    return process.wait()


def count(results: Path, code: int) -> Counts:
    """Read what a suite left in its JUnit file; a suite that left none has failed."""
    try:
        suites = list(ElementTree.parse(results).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Counts(failed=1)
    tests, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return Counts(tests - failed - skipped, failed or int(code != 0), skipped)


def end_of(log: Path) -> str:
    """Return the lines of a log that tell what went wrong, with a heading.

    Those are where it crashed or hung, or the last ones.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if not any(noise in line for noise in NOISE)]
    crashes = [index for index, line in enumerate(lines) if line.startswith(CRASHES)]
    shown = lines[crashes[-1] :][:TAIL] if crashes else lines[-TAIL:]
    return "\n".join([f"{log.relative_to(CHECKOUT)}:", *shown])


def test(
    report: Report,
    label: str,
    command: Sequence[str | Path],
    *,
    echo: bool = True,
    folder: Path = CHECKOUT,
    **environment: str,
) -> Counts:
    """Run a command that leaves a JUnit file, build/logs/LABEL.xml, and count its tests."""
    log, results = LOGS / f"{label}.log", LOGS / f"{label}.xml"
    for file in (log, results):
        file.unlink(missing_ok=True)
    code = run(command, log, echo=echo, folder=folder, environment=environment)
    counts = count(results, code)
    report.add(label, counts, log)
    return counts


def pytest(
    report: Report, label: str, python: Sequence[str | Path], *tests: str, **how: Any
) -> Counts:
    """Run tests with a python, which may be a command of several words, and count them."""
    # Bytecode and pytest's cache would be written by several interpreters at once.
    options = ("-p", "no:cacheprovider", f"--junit-xml={LOGS / label}.xml")
    command = [*python, "-m", "pytest", *tests, *options]
    return test(report, label, command, PYTHONDONTWRITEBYTECODE="1", **how)
