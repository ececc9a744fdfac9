"""What the programs engine_*.py share.

They use an engine that knows the bounds of the thread's stack: in the main greenlet, and in others
by stacks.call_on_thread_stack().
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import greenlet as library
from greenlet import error, getcurrent, greenlet
from greenlet.stacks import call_on_thread_stack

assert library.__version__ == os.environ.get("EXPECTED_GREENLET", library.__version__)


def finish(text: str) -> None:
    """End the program with success, without the exit functions of engines."""
    print(text, flush=True)
    os._exit(0)


def in_greenlet(function: Callable[[], Any]) -> Any:
    """Return function(), called by a greenlet on the thread's stack."""
    return greenlet(lambda: call_on_thread_stack(function)).switch()


def refused() -> str:
    """For callbacks of engines: try to switch, which is refused."""
    try:
        getcurrent().switch()
    except error as text:
        return str(text)
    return "switched"


def check(name: str, function: Callable[[], Any], *, threads: bool = False) -> None:
    """Check that function() returns the same wherever it is called, and print it."""
    expected = function()
    print(f"{name}: {expected}", flush=True)

    def everywhere() -> None:
        assert in_greenlet(function) == expected
        main = getcurrent()

        # Many greenlets that wait between two calls.
        def waits() -> Any:
            first = call_on_thread_stack(function)
            main.switch()
            return first, call_on_thread_stack(function)

        family = [greenlet(waits) for _ in range(20)]
        for g in family:
            g.switch()
        assert function() == expected
        for g in reversed(family):
            assert g.switch() == (expected, expected)

        # Deep in a greenlet that another greenlet started.
        def deep(level: int) -> Any:
            return deep(level - 1) if level else call_on_thread_stack(function)

        assert greenlet(lambda: greenlet(deep).switch(100)).switch() == expected

    everywhere()
    if threads:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                everywhere()
            except BaseException as failure:
                failures.append(failure)

        workers = [threading.Thread(target=body) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if failures:
            raise failures[0]
    sys.stdout.flush()
