"""Writes down how each test of unittest goes, in the process that finds this on its PYTHONPATH.

Each event is a line of the file that INTEROP_RECORD names, `OUTCOME<tab>TEST`; a test that started
and never ended, because its process did, leaves the line `started` alone. Next to nothing is
imported here, for the sake of suites that look at what is: unittest is wrapped when it is imported.
"""

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

RECORD = os.environ.get("INTEROP_RECORD")

# What a result's methods say about the test that they are given.
OUTCOMES = {
    "startTest": "started",
    "addSuccess": "passed",
    "addExpectedFailure": "passed",
    "addSkip": "skipped",
    "addError": "failed",
    "addFailure": "failed",
    "addUnexpectedSuccess": "failed",
}


def _name(test: Any) -> str:
    """The test's id, with the module's real name."""
    name = str(test.id())
    main = sys.modules["__main__"]
    if "__main__." in name:
        spec = getattr(main, "__spec__", None)
        real = spec.name if spec else os.path.basename(getattr(main, "__file__", None) or "?")
        name = name.replace("__main__.", f"{real}.")
    return name.replace("\n", " ")


# These functions are taken now: suites replace those of the module.
def _write(
    outcome: str,
    test: Any,
    open_: Callable[[str, int], int] = os.open,
    write: Callable[[int, bytes], int] = os.write,
    close: Callable[[int], None] = os.close,
) -> None:
    assert RECORD is not None
    file = open_(RECORD, os.O_WRONLY | os.O_APPEND)
    write(file, f"{outcome}\t{_name(test)}\n".encode())
    close(file)


def _wrap(result: type, method: str, outcome: str) -> None:
    original = getattr(result, method)

    def wrapper(self: object, test: object, *arguments: object) -> object:
        _write(outcome, test)
        return original(self, test, *arguments)

    setattr(result, method, wrapper)


def _wrap_subtests(result: type) -> None:
    original = result.addSubTest  # type: ignore[attr-defined]

    def wrapper(self: object, test: object, subtest: object, error: object) -> object:
        if error is not None:
            _write("failed", test)
        return original(self, test, subtest, error)

    result.addSubTest = wrapper  # type: ignore[attr-defined]


class _Finder:
    """Finds unittest.result as Python does, and wraps its TestResult once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "unittest.result":
            return None
        sys.meta_path.remove(_Finder)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            for method, outcome in OUTCOMES.items():
                _wrap(module.TestResult, method, outcome)
            _wrap_subtests(module.TestResult)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


if RECORD and os.environ.get("INTEROP_RECORD_UNITTEST"):
    sys.meta_path.insert(0, _Finder)
