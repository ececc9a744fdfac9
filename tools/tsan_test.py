"""Run the tests about threads under ThreadSanitizer, and count its reports as failures.

    tsan_test.py [--only WORD] [NAME]        default: 3.15t-tsan

Interpreter and extension are both compiled with it. A report passes only if it is of CPython's own:
a race with an access in a function that tests/tsan-suppressions.txt names, with the reason, and
none in the extension. Only where the accesses are counts: further out, frames of ours are around
everything that runs in a greenlet, and CPython's around ours. What the tests print is in
build/logs/NAME.log, each report in build/logs/NAME-reports. The last line is `N passed, N failed`.
"""

import argparse
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import environments
import interpreters
import run_tests
from interpreters import CHECKOUT
from run_tests import LOGS, Log

SUPPRESSIONS = CHECKOUT / "tests" / "tsan-suppressions.txt"
# Files of tests/python, and single tests where the rest of a file is about one thread.
TESTS = (
    "test_threads_at_once.py",
    "test_critical_sections.py",
    "test_threads.py",
    "test_thread_end.py",
    "test_subinterpreters.py",
    "test_creation.py",
    "test_thread_stack.py::test_the_function_runs_in_every_thread_on_the_stack_of_that_thread",
    "test_thread_stack.py::test_greenlets_dropped_in_the_call_end_when_it_is_over",
    "test_thread_stack.py::test_many_calls_with_drops_by_other_threads_lose_nothing",
    "test_thread_stack.py::test_calls_mixed_with_everything_at_random_in_threads",
    "test_collection_deferred.py",
    "test_collection_endings.py::test_a_greenlet_of_another_thread_is_ended_by_its_own_thread",
)
OURS = ("_greenlet.", str(CHECKOUT / "src"))
EDGE = "==================\n"


class Frame(NamedTuple):
    """One line of a stack in a report."""

    function: str
    place: str

    @property
    def is_of_caller(self) -> bool:
        """True for what works for its caller: memcpy() as ThreadSanitizer has it, an atomic."""
        return "libtsan" in self.place or "/pyatomic" in self.place

    @property
    def is_ours(self) -> bool:
        """True for code of the extension, and for what it inlined of CPython's headers."""
        return any(mark in self.place for mark in OURS)

    def __str__(self) -> str:
        return f"{self.function} ({self.place.partition(' ')[0].removeprefix(f'{CHECKOUT}/')})"


class Report(NamedTuple):
    """What ThreadSanitizer has found."""

    text: str
    accesses: tuple[Frame, ...]  # innermost frames of those that race

    @property
    def title(self) -> str:
        """Return one line that says which it is, the same each time it is found."""
        kind = re.search(r"ThreadSanitizer:? (.*?)(?: \(pid=\d+\))?$", self.text, re.MULTILINE)
        places = " against ".join(sorted(map(str, self.accesses)))
        return f"{kind[1] if kind else 'report'}: {places or 'see its text'}"

    def is_suppressed(self, functions: set[str]) -> bool:
        """Tell if it is a race of CPython's with itself that is known."""
        return (
            "ThreadSanitizer: data race" in self.text
            and any(frame.function in functions for frame in self.accesses)
            and not any(frame.is_ours for frame in self.accesses)
        )


def _stacks(text: str) -> Iterator[tuple[str, list[Frame]]]:
    """Split a report into what is said of each stack, and the stack."""
    for part in text.split("\n\n"):
        frames = re.findall(r"^    #\d+ (\S+|.+?\)) (.*)$", part, re.MULTILINE)
        says = next((line for line in part.splitlines() if re.match(r"  \S", line)), "")
        yield says.strip(), [Frame(*frame) for frame in frames]


def parse(text: str) -> Report:
    """Read one report."""
    accesses = []
    for says, frames in _stacks(text):
        if re.match(r"(Previous )?(atomic )?(read|write) of size", says, re.IGNORECASE):
            own = [frame for frame in frames if not frame.is_of_caller]
            accesses += own[:1]  # none if it is too long ago for ThreadSanitizer to know
    return Report(text, tuple(accesses))


def read_reports(folder: Path) -> list[Report]:
    """Read all reports that the processes of a run have left."""
    reports = []
    for file in sorted(folder.iterdir()):
        text = file.read_text(errors="replace")
        # What else ThreadSanitizer has to say is why it cannot go on.
        text = re.sub(r"^ThreadSanitizer: reported \d+ warnings\n", "", text, flags=re.MULTILINE)
        reports += [parse(part) for part in text.split(EDGE) if part.strip()]
    return reports


def suppressed_functions() -> set[str]:
    """Read the file of suppressions, each of which must have its reason above it."""
    functions = set()
    reason = False
    for line in SUPPRESSIONS.read_text().splitlines():
        if line.startswith("#"):
            reason = True
        elif not line:
            reason = False
        elif reason and line.startswith("race_top:"):
            functions.add(line.removeprefix("race_top:"))
        else:
            sys.exit(f"{SUPPRESSIONS.name}: {line!r} has no reason, or is no race_top")
    return functions


def judge(reports: list[Report], log: Log) -> int:
    """Print the reports, those that count in full; return how many different ones count."""
    functions = suppressed_functions()
    suppressed = Counter(report.title for report in reports if report.is_suppressed(functions))
    for title, count in sorted(suppressed.items()):
        log.write(f"suppressed, {count} times: {title}\n")
    failures: dict[str, list[Report]] = {}
    for report in reports:
        if not report.is_suppressed(functions):
            failures.setdefault(report.title, []).append(report)
    for title, same in failures.items():
        log.write(f"{EDGE}reported {len(same)} times: {title}\n{same[0].text}")
    log.write(
        f"reports of ThreadSanitizer: {len(failures)} different ones, "
        f"and {len(suppressed)} of CPython's own\n"
    )
    return len(failures)


def with_fixed_addresses() -> None:
    """Start again without address space randomization, which ThreadSanitizer cannot run with."""
    addr_no_randomize = 0x0040000
    if not int(Path("/proc/self/personality").read_text(), 16) & addr_no_randomize:
        os.execvp("setarch", ["setarch", "-R", sys.executable, "-B", *sys.argv])


def main() -> int:
    """Run the tests, read the reports and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="WORD", help="tests whose file or name contains it")
    parser.add_argument("name", nargs="?", default="3.15t-tsan", metavar="NAME")
    options = parser.parse_args()
    with_fixed_addresses()
    name: str = options.name
    os.environ["TSAN_OPTIONS"] = "report_bugs=0"  # for what makes the environment
    found = interpreters.provide([name])
    counts = [run_tests.Counts(failed=1)]
    if found:
        log = Log(name, echo=True)
        folder = LOGS / f"{name}-reports"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # exitcode: tests look at how children end, and reports count by themselves.
        # history_size: how long ago the other access may be for its stack to be known still.
        # report_thread_leaks: CPython waits for what its threads do, but never joins some of them.
        settings = f"log_path={folder / 'report'} exitcode=0 history_size=4 report_thread_leaks=0"
        tests = [test for test in TESTS if options.only is None or options.only in test]
        try:
            python = environments.ours(name, found[name])
            counts = [run_tests.run_suite("python", python, log, tests, TSAN_OPTIONS=settings)]
        except environments.Unavailable as reason:
            log.write(f"{reason}\n")
        counts.append(run_tests.Counts(failed=judge(read_reports(folder), log)))
    result = run_tests.total(counts)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
