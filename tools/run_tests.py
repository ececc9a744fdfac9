"""Run test suites on interpreters, two at a time, and count what passed and failed.

    run_tests.py                             every suite on the default interpreter
    run_tests.py --suites python --interpreters 3.14 3.14t
    run_tests.py --suites python contract --interpreters all

Suites: native (src/stack and src/context, without Python), and the folders python, contract and
interop of tests/. On several interpreters it prints one line for each; what the tests print is in
build/logs/NAME.log. The last line is `N passed, N failed`; a suite that could not be built or did
not come to its end counts as one failure.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import environments
import interpreters
from interpreters import CHECKOUT

LOGS = CHECKOUT / "build" / "logs"
PYTHON_SUITES = ("python", "contract", "interop")
SUITES = ("native", *PYTHON_SUITES)
# In minutes, for one suite on one interpreter; each test has a limit of its own.
TIME_LIMIT = 60 * float(os.environ.get("SUITE_MINUTES", "20"))
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


def total(counts: Sequence[Counts]) -> Counts:
    """Add them up."""
    return Counts(*map(sum, zip(*counts, strict=True))) if counts else Counts()


class Log:
    """Where the output of one interpreter's suites goes: a file, and the terminal if asked to."""

    def __init__(self, name: str, *, echo: bool) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self._file: IO[str] = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
        self._echo = echo
        self._suite = 0  # where the log of the suite begins

    def begin_suite(self) -> None:
        """Let what end() returns begin here."""
        self._suite = self._file.tell()

    def write(self, text: str) -> None:
        """Write it as it comes, so that a suite that hangs shows where."""
        self._file.write(text)
        self._file.flush()
        if self._echo:
            sys.stdout.write(text)
            sys.stdout.flush()

    def run(
        self, command: Sequence[str | Path], *, folder: Path = CHECKOUT, **environment: str
    ) -> int:
        """Run a command with its output going here; its return code, or minus a signal."""
        self.write(f"$ {' '.join(map(str, command))}\n")
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # to end what a hanging suite has started, too
        )
        assert process.stdout is not None
        with ThreadPoolExecutor(1) as watcher:
            watcher.submit(self._end_in_time, process)
            for line in process.stdout:
                self.write(line)
        return process.wait()

    def end(self, suite: str) -> str:
        """Return the lines of the suite that tell what went wrong, with a heading.

        Those are where it crashed or hung, else the last ones.
        """
        text = self.path.read_bytes()[self._suite :].decode(errors="replace")
        lines = [line for line in text.splitlines() if not any(noise in line for noise in NOISE)]
        crashes = [index for index, line in enumerate(lines) if line.startswith(CRASHES)]
        shown = lines[crashes[-1] :][:TAIL] if crashes else lines[-TAIL:]
        return "\n".join([f"{suite} in {self.path.relative_to(CHECKOUT)}:", *shown])

    def _end_in_time(self, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self.write(f"not at its end after {TIME_LIMIT:.0f} s\n")
        # Also after a normal end: a child left behind would keep the pipe open for ever.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _count(results: Path, returncode: int, log: Log) -> Counts:
    """Read what a suite left in its JUnit file; a suite that left none has failed."""
    try:
        suites = ElementTree.parse(results).getroot().iter("testsuite")
        numbers = [
            [int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")]
            for suite in suites
        ]
    except (OSError, ElementTree.ParseError):
        log.write(f"the suite did not come to its end (return code {returncode})\n")
        return Counts(failed=1)
    tests, failures, errors, skipped = map(sum, zip(*numbers, strict=True))
    counts = Counts(tests - failures - errors - skipped, failures + errors, skipped)
    if returncode and not counts.failed:
        log.write(f"no test failed, but the suite ended with {returncode}\n")
        return counts._replace(failed=1)
    return counts


def run_native(log: Log) -> Counts:
    """Build and run the unit tests that need no Python."""
    tools = environments.tools("build").parent
    build = CHECKOUT / "build" / "native"
    results = build / "results.xml"
    results.unlink(missing_ok=True)
    configure = [
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"),
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DGREENLET_WERROR={environments.WERROR}"),
        *("-DGREENLET_NATIVE_TESTS=ON", "-DGREENLET_EXTENSION=OFF"),
    ]
    test = ["--output-on-failure", "--no-tests=error", "--parallel", "2", "--timeout", "300"]
    steps: list[list[str | Path]] = [
        [tools / "cmake", "-S", CHECKOUT, "-B", build, *configure],
        [tools / "cmake", "--build", build, "--parallel", "2"],
        [tools / "ctest", "--test-dir", build, *test, "--output-junit", results],
    ]
    code = 0
    for step in steps:
        code = log.run(step)
        if code:
            break
    return _count(results, code, log)


def run_python(suite: str, name: str, base: Path, log: Log) -> Counts:
    """Run a folder of tests/ in the environment with our greenlet."""
    try:
        python = environments.ours(name, base)
        if suite == "contract":
            environments.published(name, base)
    except environments.Unavailable as reason:
        log.write(f"{reason}\n")
        if suite == "contract" and "No matching distribution found" in str(reason):
            return Counts(skipped=1)  # nothing to compare with on this interpreter
        return Counts(failed=1)
    return run_suite(suite, python, log)


def run_suite(
    suite: str,
    python: Path,
    log: Log,
    tests: Sequence[str] = (),
    *,
    folder: Path = CHECKOUT,
    prefix: Sequence[str | Path] = (),
    **environment: str,
) -> Counts:
    """Run tests/SUITE of a folder, or these tests of it, in an environment that is there.

    The command begins with `prefix`, which may lead into another system.
    """
    results = LOGS / f"{log.path.stem}-{suite}.xml"
    results.unlink(missing_ok=True)
    paths = [f"tests/{suite}/{test}" for test in tests] or [f"tests/{suite}"]
    command: list[str | Path] = [*prefix, python, "-m", "pytest", *paths, f"--junit-xml={results}"]
    # Bytecode and pytest's cache would be written by several interpreters at once.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    code = log.run([*command, "-p", "no:cacheprovider"], folder=folder, **environment)
    return _count(results, code, log)


def run_interpreter(
    name: str, base: Path, suites: Sequence[str], *, echo: bool
) -> tuple[Counts, list[str]]:
    """Run suites on one interpreter, one after the other; also return the ends of failed logs."""
    started = time.monotonic()
    log = Log(name, echo=echo)
    counts = []
    ends = []
    for suite in suites:
        log.begin_suite()
        counts.append(run_native(log) if suite == "native" else run_python(suite, name, base, log))
        if echo:
            print(f"{suite}: {counts[-1]}\n", flush=True)
        if counts[-1].failed:
            ends.append(log.end(suite))
    result = total(counts)
    if not echo:
        seconds = time.monotonic() - started
        where = log.path.relative_to(CHECKOUT)
        print(f"{name:12} {result} in {seconds:.0f} s ({where})", flush=True)
    return result, ends


def main() -> int:
    """Run what the command line names and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=SUITES)
    parser.add_argument("--interpreters", nargs="+", metavar="NAME", default=["default"])
    options = parser.parse_args()
    names: list[str] = options.interpreters
    if names == ["default"]:
        name, base = interpreters.default()
        found, names = {name: base}, [name]
    else:
        if names == ["all"]:
            names = list(interpreters.STANDARD)
        found = interpreters.provide(names)
    echo = len(names) == 1

    def run(name: str) -> tuple[Counts, list[str]]:
        if name not in found:
            print(f"{name:12} no such interpreter on this machine", flush=True)
            return Counts(failed=1), []
        return run_interpreter(name, found[name], options.suites, echo=echo)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, names))
    result = total([counts for counts, _ in results])
    for end in (end for _, ends in results for end in ends):
        print(end)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
