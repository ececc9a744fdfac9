"""Run the Python suite under AddressSanitizer and UndefinedBehaviorSanitizer.

Interpreter and extension are both compiled with the first, the extension with the second as well.
Whatever they have to say, warnings included, is in build/logs/asan-reports, and counts as a
failure of its own: a test may not look at how its child ended.
"""

import shutil
from collections.abc import Sequence

import environments
import suites
from suites import LOGS, Counts

NAME = "3.15-asan"


def run(report: suites.Report, tests: Sequence[str]) -> None:
    """Run the tests, or all of tests/python."""
    folder = LOGS / "asan-reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # detect_leaks: CPython leaves much behind at its exit.
    # allocator_may_return_null: tests ask for more memory than there is.
    options = f"log_path={folder / 'report'}:detect_leaks=0:allocator_may_return_null=1"
    options += ":print_stacktrace=1"
    chosen = tests or ["tests/python"]
    with environments.required(report, NAME):
        python = environments.ours(NAME, environments.base(NAME))
        suites.pytest(report, NAME, [python], *chosen, ASAN_OPTIONS=options, UBSAN_OPTIONS=options)
    reports = sorted(folder.iterdir())
    log = LOGS / "asan-reports.log"
    log.write_text("\n".join(file.read_text(errors="replace") for file in reports))
    report.add("reports of the sanitizers", Counts(passed=not reports, failed=len(reports)), log)
