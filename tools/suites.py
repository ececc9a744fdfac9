"""Run suites of tests and count what passed and failed.

Neither nox nor pytest has what is here: a suite that crashes, or hangs in C beyond the reach of
pytest's time limits, is ended with all its children, counts as one failure, and the others go on.
What a suite prints is in build/logs.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
LOGS = CHECKOUT / "build" / "logs"
# For one suite; each test has a limit of its own.
TIME_LIMIT = 60 * float(os.environ.get("SUITE_MINUTES", "20"))
TAIL = 25  # lines of the log of a suite that failed, shown at the end
CRASHES = ("Fatal Python error:", "Timeout (")  # how the lines begin that faulthandler writes
WRONG = "What went wrong:"
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

    def add_process(self, label: str, log: Path) -> None:
        """Count what another process has counted and finished with."""
        text = log.read_text(encoding="utf-8", errors="replace")
        counted = re.search(r"^(\d+) passed, (\d+) failed\n\Z", text, re.MULTILINE)
        counts = Counts(int(counted[1]), int(counted[2])) if counted else Counts(failed=1)
        end = text.rpartition(f"{WRONG}\n")[2] if counted and WRONG in text else ""
        self.add(f"{label} ({log.relative_to(CHECKOUT)})", counts, None if end else log)
        self._ends.append(end[: end.rfind("\n", 0, -1)])

    def finish(self) -> None:
        """Print what went wrong, and the counts in the last line."""
        if ends := [end for end in self._ends if end]:
            print(WRONG, *ends, sep="\n")
        if self._counts:
            print(f"{self.total.passed} passed, {self.total.failed} failed", flush=True)


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    echo: bool = True,
    limit: float | None = TIME_LIMIT,
    folder: Path = CHECKOUT,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command, add what it prints to a log, and end what it leaves behind.

    Returns its return code, or minus the signal that ended it.
    """
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

        def end_in_time() -> None:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                file.write(f"not at its end after {limit:.0f} s\n")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGABRT)  # faulthandler says where they are
                    time.sleep(2)
            # Also after a normal end: a child left behind would keep the pipe open for ever.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        watcher = threading.Thread(target=end_in_time)
        watcher.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                if echo:
                    sys.stdout.write(line)
                    sys.stdout.flush()
        except BaseException:
            process.kill()
            raise
        finally:
            watcher.join()
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


def pytest(
    report: Report,
    label: str,
    python: Sequence[str | Path],
    *tests: str,
    folder: Path = CHECKOUT,
    **environment: str,
) -> Counts:
    """Run tests with a python, which may be a command of several words, and count them."""
    log, results = LOGS / f"{label}.log", LOGS / f"{label}.xml"
    for file in (log, results):
        file.unlink(missing_ok=True)
    # Bytecode and pytest's cache would be written by several interpreters at once.
    options = ["-p", "no:cacheprovider", f"--junit-xml={results}"]
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [*python, "-m", "pytest", *tests, *options]
    code = run(command, log, folder=folder, environment=environment)
    counts = count(results, code)
    report.add(label, counts, log)
    return counts
