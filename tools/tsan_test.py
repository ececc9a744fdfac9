"""Run the tests about threads under ThreadSanitizer, and count its reports as failures.

Interpreter and extension are both compiled with it. A report is suppressed only if CPython races
with itself: one access is in a function that tests/tsan-suppressions.txt names, with the reason,
and none is in the extension. ThreadSanitizer's own suppressions cannot say the second, and would
hide races of the extension with those functions. Only the innermost frames count: further out,
frames of ours are around everything that runs in a greenlet, and CPython's around ours. Each report
is in build/logs/tsan-reports.
"""

import ctypes
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import environments
import interpreters
import suites
from suites import CHECKOUT, LOGS, Counts

NAME = "3.15t-tsan"
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


class Race(NamedTuple):
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


def parse(text: str) -> Race:
    """Read one report."""
    accesses = []
    for part in text.split("\n\n"):  # one for each stack, with a line above it that says which
        if re.search(r"^  (Previous )?(atomic )?(read|write) of size", part, re.M | re.I):
            frames = re.findall(r"^    #\d+ (\S+|.+?\)) (.*)$", part, re.MULTILINE)
            own = [frame for frame in map(Frame._make, frames) if not frame.is_of_caller]
            accesses += own[:1]  # none if it is too long ago for ThreadSanitizer to know
    return Race(text, tuple(accesses))


def read_reports(folder: Path) -> list[Race]:
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


def judge(reports: list[Race]) -> tuple[str, int]:
    """Return what is suppressed, with a report of each kind that counts, and how many kinds do."""
    functions = suppressed_functions()
    kinds: dict[str, list[Race]] = {}
    suppressed: Counter[str] = Counter()
    for report in reports:
        if report.is_suppressed(functions):
            suppressed[report.title] += 1
        else:
            kinds.setdefault(report.title, []).append(report)
    text = "".join(f"suppressed, {n} times: {title}\n" for title, n in sorted(suppressed.items()))
    for title, same in kinds.items():
        text += f"{EDGE}reported {len(same)} times: {title}\n{same[0].text}"
    return text, len(kinds)


def run(report: suites.Report, words: Sequence[str]) -> None:
    """Run the tests, those with one of the words in their names if there are words."""
    # ThreadSanitizer cannot run with address space randomization: off, for all that this starts.
    ctypes.CDLL(None).personality(0x0040000)
    os.environ["TSAN_OPTIONS"] = "report_bugs=0"  # for what makes the environment
    found = interpreters.provide([NAME])
    folder = LOGS / "tsan-reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # exitcode: tests look at how children end, and reports count by themselves.
    # history_size: how long ago the other access may be for its stack to be known still.
    # report_thread_leaks: CPython waits for what its threads do, but never joins some of them.
    settings = f"log_path={folder / 'report'} exitcode=0 history_size=4 report_thread_leaks=0"
    try:
        python = environments.ours(NAME, found[NAME])
    except (KeyError, environments.Unavailable) as reason:
        print(reason)
        return report.add("no environment", Counts(failed=1))
    tests = [
        f"tests/python/{test}" for test in TESTS if not words or any(word in test for word in words)
    ]
    suites.pytest(report, NAME, [python], *tests, TSAN_OPTIONS=settings)
    log = LOGS / "tsan-reports.log"
    text, kinds = judge(read_reports(folder))
    print(text)
    log.write_text(text)
    report.add("kinds of reports of ThreadSanitizer", Counts(failed=kinds), log)
