"""Every test starts and ends in the main greenlet of its thread, untraced, with nothing pending."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import greenlet
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stress: takes minutes; run by `make stress` alone")


def pytest_collection_finish() -> None:
    # What the test runner holds need not be searched in each of the suite's many collections.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def a_test_leaves_the_thread_as_it_found_it() -> Iterator[None]:
    main = greenlet.getcurrent()
    assert main.parent is None
    yield
    assert greenlet.getcurrent() is main
    assert greenlet.gettrace() is None
