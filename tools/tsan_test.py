"""Run the tests about threads under ThreadSanitizer, and count its reports as failures.

Interpreter and extension are both compiled with it. A report is suppressed only if CPython races
with itself: one access is in a function that tests/tsan-suppressions.txt names, with the reason,
and none is in the extension. ThreadSanitizer's own suppressions cannot say the second, and would
hide races of the extension with those functions. Only the innermost frames count: further out,
frames of ours are around everything that runs in a greenlet, and CPython's around ours. Each report
is in build/logs/3.15t-tsan-reports.
"""

import os
import re
import sys
from collections.abc import Sequence

import environments
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
    "test_inspect.py",
    "test_inspect_hostile.py",
    "test_thread_stack.py::test_the_function_runs_in_every_thread_on_the_stack_of_that_thread",
    "test_thread_stack.py::test_greenlets_dropped_in_the_call_end_when_it_is_over",
    "test_thread_stack.py::test_many_calls_with_drops_by_other_threads_lose_nothing",
    "test_thread_stack.py::test_calls_mixed_with_everything_at_random_in_threads",
    "test_timeline.py::test_all_threads_are_recorded_with_their_names",
    "test_timeline.py::test_greenlets_of_other_threads_that_do_not_switch_are_there",
    "test_timeline.py::test_no_switch_of_a_storm_is_missing",
    "test_timeline.py::test_stop_and_start_during_a_storm",
    "test_timeline.py::test_threads_that_come_and_go_during_recordings",
    "test_collection_deferred.py",
    "test_collection_endings.py::test_a_greenlet_of_another_thread_is_ended_by_its_own_thread",
)
EDGE = "==================\n"
# In a report: the stack of an access, and the function and the place of a frame.
ACCESS = re.compile(
    r"^  (?:Previous )?(?:atomic )?(?:read|write) of size.*\n((?:    #\d+ .*\n)*)", re.M | re.I
)
FRAME = re.compile(r"^    #\d+ (\S+|.+?\)) (.*)$", re.M)
# A place that works for its caller: memcpy() as ThreadSanitizer has it, an atomic.
OF_CALLER = re.compile(r"libtsan|/pyatomic")
# A place in the extension, or in what it inlined of CPython's headers.
OURS = re.compile(rf"_greenlet\.|{re.escape(str(CHECKOUT / 'src'))}")


def judge(report: str, suppressed: set[str]) -> tuple[str, bool]:
    """Return what a report is about, the same each time, and whether it is of a known race."""
    accesses = []  # the innermost frames of those that race
    for stack in ACCESS.findall(report):
        own = [frame for frame in FRAME.findall(stack) if not OF_CALLER.search(frame[1])]
        accesses += own[:1]  # none if it is too long ago for ThreadSanitizer to know
    kind = re.search(r"ThreadSanitizer:? (.*?)(?: \(pid=\d+\))?$", report, re.M)
    frames = sorted(
        f"{function} ({place.partition(' ')[0].removeprefix(f'{CHECKOUT}/')})"
        for function, place in accesses
    )
    known = (
        "ThreadSanitizer: data race" in report
        and any(
            {function, f"{function}@{place.partition(' ')[0]}"} & suppressed
            for function, place in accesses
        )
        and not any(OURS.search(place) for _, place in accesses)
    )
    title = f"{kind[1] if kind else 'report'}: {' against '.join(frames) or 'see its text'}"
    return title, known


def suppressed_functions() -> set[str]:
    """Read the file of suppressions, each of which must have its reason above it."""
    text = SUPPRESSIONS.read_text()
    for paragraph in text.split("\n\n"):
        if not re.fullmatch(r"(#.*\n?)+(race_top:\S+\n?)*", paragraph):
            sys.exit(f"{SUPPRESSIONS.name}: no reason, or no race_top:\n{paragraph}")
    return set(re.findall(r"^race_top:(\S+)$", text, re.M))


def sum_up(reports: str) -> tuple[str, int]:
    """Return what is suppressed, with a report of each kind that counts, and how many kinds do."""
    suppressed = suppressed_functions()
    kinds: dict[tuple[bool, str], list[str]] = {}
    # What else ThreadSanitizer has to say is why it cannot go on.
    reports = re.sub(r"^ThreadSanitizer: reported \d+ warnings\n", "", reports, flags=re.M)
    for report in reports.split(EDGE):
        if report.strip():
            title, known = judge(report, suppressed)
            kinds.setdefault((not known, title), []).append(report)
    text = ""
    for (counts, title), same in sorted(kinds.items()):
        if counts:
            text += f"{EDGE}reported {len(same)} times: {title}\n{same[0]}"
        else:
            text += f"suppressed, {len(same)} times: {title}\n"
    return text, sum(counts for counts, _ in kinds)


def run(report: suites.Report, words: Sequence[str]) -> None:
    """Run the tests, those with one of the words in their names if there are words."""
    environments.keep_addresses()
    os.environ["TSAN_OPTIONS"] = "report_bugs=0"  # for what makes the environment
    named = [test for test in TESTS if not words or any(word in test for word in words)]
    if not named:
        sys.exit(f"none of these tests has {' or '.join(words)} in its name: {', '.join(TESTS)}")
    # exitcode: tests look at how children end, and reports count by themselves.
    # history_size: how long ago the other access may be for its stack to be known still.
    # report_thread_leaks: CPython waits for what its threads do, but never joins some of them.
    options = "exitcode=0:history_size=4:report_thread_leaks=0"
    tests = [f"tests/python/{test}" for test in named]
    reports = environments.sanitized(report, NAME, tests, TSAN_OPTIONS=options)
    text, kinds = sum_up(EDGE.join(reports))
    print(text)
    log = LOGS / "tsan-reports.log"
    log.write_text(text)
    report.add("kinds of reports of ThreadSanitizer", Counts(failed=kinds), log)
