"""Watching for greenlets that hold their thread: the thread behind ``greenlet.inspect.watch()``."""

import atexit
import os
import sys
import threading
from _thread import TIMEOUT_MAX
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple, Self

from . import _allocate_lock, _get_ident, _greenlet, _start_new_thread
from ._greenlet import greenlet
from ._view import FrameView


def main_native_id() -> int | None:
    """The system's number for the main thread."""
    # Linux numbers it as the process, also in the child of a fork.
    return os.getpid() if sys.platform == "linux" else threading.main_thread().native_id


class HeldUp(NamedTuple):
    """A greenlet that has held its thread for long."""

    greenlet: greenlet
    name: str
    """What ``get_name()`` says of it."""
    seconds: float
    """For at least so long there was no switch in the thread."""
    thread: int
    """The thread's ident."""
    thread_name: str
    """The thread's name."""
    waiting: int
    """How many greenlets of the thread wait until it switches."""
    stack: tuple[FrameView, ...]
    """Where it is, the outermost frame first."""

    def __str__(self) -> str:
        lines = [
            f"greenlet {self.name} has held thread {self.thread_name} for {self.seconds:.3g} s,"
            f" {self.waiting:,} wait"
        ]
        lines += [f"  {frame.function}  {frame.file}:{frame.line}" for frame in self.stack]
        return "\n".join(lines)


class Watch:
    """What ``watch()`` returns. ``stop()``, or leaving it as a context manager, ends it."""

    def __init__(
        self,
        seconds: float,
        callback: Callable[[HeldUp], object],
        look: Callable[[int, greenlet, int, float], HeldUp | None],
    ) -> None:
        self._seconds, self._callback, self._look = seconds, callback, look
        self._process = os.getpid()
        self._ident = 0
        # The first is released to end the watch; the second, when it has ended.
        self._wake, self._ended = _allocate_lock(), _allocate_lock()
        self._wake.acquire()
        self._ended.acquire()
        # Neither a threading.Thread, which event loops replace by greenlets, nor one that others
        # wait for at the end of the program.
        _start_new_thread(self._run, ())
        atexit.register(self._stop_at_exit)

    def stop(self) -> None:
        """End the watch. It calls its callback no more once this has returned."""
        atexit.unregister(self._stop_at_exit)
        if self._tell_to_stop() and _get_ident() != self._ident:
            with self._ended:
                pass

    def _tell_to_stop(self) -> bool:
        if os.getpid() != self._process:
            return False  # a fork, without the thread
        with suppress(RuntimeError):  # if it has been told already
            self._wake.release()
        return True

    def _stop_at_exit(self) -> None:
        # No thread may be left in an interpreter that ends. But a callback may wait for ever.
        if self._tell_to_stop() and self._ended.acquire(timeout=1):
            self._ended.acquire(timeout=0.01)  # for its thread state to be gone
            self._ended.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        self._ident = _get_ident()
        try:
            while True:
                try:
                    self._look_at_threads()
                except BaseException:
                    self._report("Exception ignored in a watch")
                if self._wake.acquire(timeout=min(self._seconds, TIMEOUT_MAX)):
                    return
        finally:
            self._ended.release()

    def _look_at_threads(self) -> None:
        found = [*_greenlet._watch_threads()]
        while found:
            ident, held, running, started = found.pop()
            # Not quite: timeouts are less exact than clocks.
            if held >= 0.99 * self._seconds:
                one = self._look(ident, running, started, held)
                if one is not None:
                    self._call_back(one)

    def _call_back(self, found: HeldUp) -> None:
        try:
            self._callback(found)
        except BaseException:
            self._report("Exception ignored in the callback of a watch")

    def _report(self, text: str) -> None:
        kind, value, traceback = sys.exc_info()
        report: Any = SimpleNamespace(
            exc_type=kind,
            exc_value=value,
            exc_traceback=traceback,
            err_msg=text,
            object=self._callback,
        )
        with suppress(BaseException):
            sys.unraisablehook(report)
