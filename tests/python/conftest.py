"""Every test starts and ends in the main greenlet of its thread, untraced, with nothing pending."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import greenlet
import not_on_windows
import pytest
from helpers import collections_after


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gc-threshold",
        type=int,
        metavar="N",
        help="collect after N allocations in every test (1: at each), to find what is unsound",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if sys.platform == "win32" else ():
        name = item.nodeid.rpartition("tests/python/")[2]
        for pattern, reason in not_on_windows.TESTS.items():
            # Brackets are part of names, and no sets of letters.
            if fnmatchcase(name, pattern.replace("[", "[[]")):
                item.add_marker(pytest.mark.skip(reason=f"not on Windows: {reason}"))


def pytest_collection_finish() -> None:
    # The collector then leaves the test runner's objects out of the suite's many collections.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    threshold = item.config.getoption("gc_threshold", None)
    function = getattr(item, "obj", None)
    if threshold is None or not getattr(function, "is_hypothesis_test", False):
        with collections_after(threshold):
            return (yield)
    # Hypothesis allocates a thousand times as much as the test does. So only the test collects.
    handle: Any = function.hypothesis  # type: ignore[union-attr]
    inner = handle.inner_test

    def collecting(*args: object, **kwargs: object) -> object:
        with collections_after(threshold):
            return inner(*args, **kwargs)

    handle.inner_test = collecting
    try:
        return (yield)
    finally:
        handle.inner_test = inner


@pytest.fixture(autouse=True)
def a_test_leaves_the_thread_as_it_found_it() -> Iterator[None]:
    main = greenlet.getcurrent()
    assert main.parent is None
    yield
    assert greenlet.getcurrent() is main
    assert greenlet.gettrace() is None
