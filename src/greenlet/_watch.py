"""Watching for greenlets that hold their thread: the thread behind ``greenlet.inspect.watch()``."""

import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple, Self

from . import _greenlet
from ._greenlet import greenlet
from ._view import FrameView


class HeldUp(NamedTuple):
    """A greenlet that has held its thread for long."""

    greenlet: greenlet
    name: str
    seconds: float
    """At least so long there was no switch in the thread."""
    thread: int
    """The thread's ident."""
    thread_name: str
    waiting: int
    """How many greenlets of the thread wait meanwhile."""
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
        self._stopped = threading.Event()
        # Not a thread that others wait for at the end of the program.
        self._thread = threading.Thread(
            target=self._run, name="greenlet.inspect.watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the watch. It calls its callback no more once this has returned."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

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
        held: dict[int, float] = {}  # since when, by thread
        looked = time.monotonic()
        _greenlet._watch_threads()
        while not self._stopped.wait(self._seconds):
            found = _greenlet._watch_threads()
            # No switch since the last look, which is the first one of this time or a later one.
            held = {ident: held.get(ident, looked) for ident, *_ in found}
            looked = time.monotonic()
            while found:
                ident, _, _, running, started = found.pop()
                self._report(ident, running, started, looked - held[ident])
                del running

    def _report(self, ident: int, running: greenlet, started: int, seconds: float) -> None:
        found = self._look(ident, running, started, seconds)
        if found is None:
            return
        try:
            self._callback(found)
        except Exception:
            kind, value, traceback = sys.exc_info()
            report: Any = SimpleNamespace(
                exc_type=kind,
                exc_value=value,
                exc_traceback=traceback,
                err_msg="Exception ignored in the callback of a watch",
                object=self._callback,
            )
            sys.unraisablehook(report)
