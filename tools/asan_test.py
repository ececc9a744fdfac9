"""Run the Python suite under AddressSanitizer and UndefinedBehaviorSanitizer.

Interpreter and extension are both compiled with the first, the extension with the second as well.
Whatever they have to say, warnings included, is in build/logs/asan-reports.log, and counts as a
failure of its own: a test may not look at how its child ended.
"""

from collections.abc import Sequence

import environments
import suites
from suites import LOGS, Counts

NAME = "3.15-asan"


def run(report: suites.Report, tests: Sequence[str]) -> None:
    """Run the tests, or all of tests/python."""
    # detect_leaks: CPython leaves much behind at its exit.
    # allocator_may_return_null: tests ask for more memory than there is.
    # LD_PRELOAD: the sanitizer looks for the C++ runtime at the start alone, and tests throw
    # exceptions. It is not the first library then.
    options = "detect_leaks=0:allocator_may_return_null=1:print_stacktrace=1"
    # handle_...: tests cause these signals, and look at what faulthandler writes.
    options += ":verify_asan_link_order=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0"
    variables = {
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": options,
        "LD_PRELOAD": "libstdc++.so.6",
    }
    reports = environments.sanitized(report, NAME, tests or ["tests/python"], **variables)
    log = LOGS / "asan-reports.log"
    log.write_text("\n".join(reports))
    report.add("reports of the sanitizers", Counts(int(not reports), len(reports)), log)
