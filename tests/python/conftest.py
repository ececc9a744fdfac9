"""Every test starts and ends in the main greenlet of its thread, untraced, with nothing pending."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import greenlet
import pytest
from helpers import FREE_THREADED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gc-threshold",
        type=int,
        metavar="N",
        help="collect after N allocations in every test (1: at each), to find what is unsound",
    )


def pytest_collection_finish() -> None:
    # What the test runner holds need not be searched in each of the suite's many collections.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    threshold = item.config.getoption("gc_threshold", None)
    if threshold is None:
        return (yield)
    usual = gc.get_threshold()
    if FREE_THREADED:
        gc.set_threshold(threshold, 0, 0)  # else they wait until a quarter of all objects is new
    else:
        gc.set_threshold(threshold, 5, 5)  # one in 25 looks at all objects
    try:
        return (yield)
    finally:
        gc.set_threshold(*usual)


@pytest.fixture(autouse=True)
def a_test_leaves_the_thread_as_it_found_it() -> Iterator[None]:
    main = greenlet.getcurrent()
    assert main.parent is None
    yield
    assert greenlet.getcurrent() is main
    assert greenlet.gettrace() is None
