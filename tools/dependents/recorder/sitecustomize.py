"""Writes down how each test goes, for a suite that has this folder on its PYTHONPATH.

Each event is a line of the file that INTEROP_RECORD names, `OUTCOME<tab>TEST`; a test that started
and never ended, because its process did, leaves the line `started` alone. pytest loads this as a
plugin (PYTEST_DONT_REWRITE: it is imported already). What INTEROP_DONE names has been run before,
by a pytest that did not come to its end, and is left out. In the processes of gevent's tests
unittest is wrapped; nothing else is imported, for the sake of tests that look at what is.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

# What a result's methods say about the test that they are given.
UNITTEST = {
    "startTest": "started",
    "addSuccess": "passed",
    "addExpectedFailure": "passed",
    "addSkip": "skipped",
    "addError": "failed",
    "addFailure": "failed",
    "addUnexpectedSuccess": "failed",
}


# These functions are taken now: suites replace those of the module.
def write(
    outcome: str,
    test: str,
    open_: Callable[[str, int], int] = os.open,
    write_: Callable[[int, bytes], int] = os.write,
    close: Callable[[int], None] = os.close,
) -> None:
    """Write a line, but not in a worker of pytest-xdist: its controller hears of every test."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        file = open_(os.environ["INTEROP_RECORD"], os.O_WRONLY | os.O_APPEND)
        write_(file, f"{outcome}\t{plain(test)}\n".encode())
        close(file)


def plain(test: str) -> str:
    """Return a test's name as it is written down."""
    return test.replace("\0", "?").replace("\n", " ")


def pytest_runtest_logstart(nodeid: str) -> None:
    write("started", nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    if report.failed:
        write("failed", report.nodeid)
    elif report.skipped and not hasattr(report, "wasxfail"):
        write("skipped", report.nodeid)
    elif report.skipped or report.when == "call":
        write("passed", report.nodeid)  # or failed as expected


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        write("failed", f"{report.nodeid} (collection)")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    with open(os.environ["INTEROP_DONE"], encoding="utf-8") as file:
        done = {line.rstrip("\n").partition("\t")[2] for line in file}
    left_out = [item for item in items if plain(item.nodeid) in done]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if plain(item.nodeid) not in done]


def wrap(result: Any, method: str, outcome: str) -> None:
    """Let a method of unittest's results write down what it is told."""
    original = getattr(result, method)

    def wrapper(self: object, test: Any, *arguments: Any) -> object:
        # addSubTest is given the subtest, and its error if it failed.
        if method != "addSubTest" or arguments[1] is not None:
            spec = sys.modules["__main__"].__spec__  # each module is run with -m
            write(outcome, test.id().replace("__main__.", f"{spec.name if spec else '?'}."))
        return original(self, test, *arguments)

    setattr(result, method, wrapper)


if "INTEROP_RECORD" in os.environ and "gevent.tests" in " ".join(sys.orig_argv):
    import unittest

    for method, outcome in (*UNITTEST.items(), ("addSubTest", "failed")):
        wrap(unittest.TestResult, method, outcome)
