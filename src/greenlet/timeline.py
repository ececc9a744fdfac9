"""Record which greenlet runs when, and look at it on a timeline::

    from greenlet import timeline

    with timeline.record() as recording:
        serve_for_some_seconds()
    recording.save("server.html")

The page needs nothing but a browser. ``save("server.json")`` writes the trace event format, which
Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) open. ``python -m greenlet trace
program.py`` does the same for a whole program.

A recording has the switches of all threads of the interpreter. It keeps names, not greenlets: those
that end during the recording are freed as usual.
"""

import atexit
import functools
import os
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import merge
from itertools import accumulate
from typing import Any, NamedTuple

from . import _greenlet, inspect

__all__ = [
    "DEFAULT_LIMIT",
    "GreenletTrack",
    "Recording",
    "Switch",
    "ThreadTrack",
    "is_recording",
    "record",
    "start",
    "stop",
]

#: How many switches a recording keeps unless you say otherwise: 64 MB.
DEFAULT_LIMIT = 4_000_000

# Bits of _greenlet: of a switch, and of a greenlet.
_THROWN, _FINISHED, _WHAT_BITS = 1, 2, 2
_MAIN, _SCHEDULER, _WAS_THERE, _HAS_FINISHED = 1, 2, 4, 8


class Switch(NamedTuple):
    """One switch. Threads and greenlets are given by their numbers in the recording."""

    time: int
    """Nanoseconds since the recording began."""
    thread: int
    """The number of the thread that both run in."""
    origin: int
    """The greenlet that was left."""
    target: int
    """The greenlet that went on or started."""
    thrown: bool
    """Whether an exception was thrown into the target."""
    finished: bool
    """Whether the origin has finished."""


class GreenletTrack(NamedTuple):
    """A greenlet that was alive during the recording. It may be long gone."""

    number: int
    """Its index in ``Recording.greenlets``."""
    name: str
    """What ``inspect.set_name()`` or the attribute ``name`` says, or else the function's name."""
    function: str | None
    """The qualified name of what it runs; None for main greenlets and where it is not known."""
    type: str
    """The qualified name of its class."""
    id: int
    """Its address, as ``id()`` has told it. Two greenlets may have had the same one in turns."""
    thread: int
    """The number of its thread."""
    is_main: bool
    """Whether it is the main greenlet of its thread."""
    is_scheduler: bool
    """Whether it is a scheduler, such as gevent's hub: it runs while no other greenlet does."""
    was_there: bool
    """Whether it had started before the recording began."""
    finished: bool
    """Whether it has finished during the recording."""


class ThreadTrack(NamedTuple):
    """A thread that used greenlets during the recording."""

    number: int
    """Its index in ``Recording.threads``."""
    name: str
    """Its name in ``threading``, or what is known instead."""
    ident: int
    """``threading.get_ident()`` there."""
    native_id: int
    """The number that the operating system has given it."""
    begin: int
    """When it used greenlets first, in nanoseconds since the recording began, or 0."""
    end: int | None
    """When it ended, in nanoseconds since the recording began; None if it has not."""
    running: int | None
    """The number of the greenlet that ran in it first; None if that is not known."""
    switches: int
    """How many of its switches the recording has."""
    lost: int
    """How many it does not have, because the limit was reached."""
    complete_until: int | None
    """When the first of these was, in nanoseconds from the beginning; None if it has all."""
    processor_time: int | None
    """How many nanoseconds it has worked during the recording; None if that is not known.

    The rest of the time it has waited: for events, in the kernel, or for the GIL.
    """


class Recording:
    """What was recorded. Empty until the recording has stopped."""

    def __init__(self) -> None:
        self.title = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "Python"
        """What the page shows as its heading."""
        self.started_at = time.time()
        """When the recording began, as ``time.time()`` told it: seconds since 1970."""
        self.process = os.getpid()
        """The number of the process."""
        self.duration = 0
        """Nanoseconds from the beginning to the end."""
        self.threads: list[ThreadTrack] = []
        """The threads that used greenlets during the recording."""
        self.greenlets: list[GreenletTrack] = []
        """The greenlets that were alive during the recording."""
        # Of each thread: 64 bits, the time since the switch before and two bits; 32 bits each for
        # the greenlets that were left and entered.
        self._switches: list[bytes] = []
        # Of the threads that were there at the beginning, by the system's number.
        self._thread_names: dict[int, str | None] = {}
        self._processor_times: dict[int, int] = {}

    @property
    def switches(self) -> int:
        """How many switches the recording has."""
        return sum(thread.switches for thread in self.threads)

    @property
    def lost(self) -> int:
        """How many switches it does not have, because the limit was reached."""
        return sum(thread.lost for thread in self.threads)

    @property
    def complete_until(self) -> int | None:
        """When the limit was reached, in nanoseconds since the beginning; None if it was not.

        Switches after that moment may be missing.
        """
        moments = (thread.complete_until for thread in self.threads)
        return min((moment for moment in moments if moment is not None), default=None)

    def __repr__(self) -> str:
        return (
            f"<Recording of {self.switches:,} switches of {len(self.greenlets):,} greenlets"
            f" in {len(self.threads)} threads, {self.duration / 1e9:.3f} s>"
        )

    def events(self, thread: int | None = None) -> Iterator[Switch]:
        """Yield the switches, of all threads or of one (by its number), in the order of time."""
        if thread is None:
            yield from merge(*(self.events(one.number) for one in self.threads))
            return
        times, origins, targets = self._columns(thread)
        for at, origin, target in zip(times, origins, targets, strict=True):
            yield Switch(
                at >> _WHAT_BITS, thread, origin, target, bool(at & _THROWN), bool(at & _FINISHED)
            )

    def _columns(self, thread: int) -> "tuple[array[int], memoryview, memoryview]":
        """The times with their two bits, the origins and the targets of a thread's switches."""
        data = memoryview(self._switches[thread])
        steps = data.cast("Q")[::2] if data else data
        what = (1 << _WHAT_BITS) - 1
        whole = accumulate(steps, lambda before, step: (before & ~what) + step)
        pairs = data.cast("I") if data else data
        return array("Q", whole), pairs[2::4], pairs[3::4]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file. Its name says what: ``.html`` is the page, ``.json`` trace events.

        A name that ends in ``.json.gz`` is compressed; Perfetto opens it, too. Any other name
        raises ``ValueError``.
        """
        from . import _timeline_files

        _timeline_files.writer_of(path)(self, path)

    def _fill(self, found: tuple[Any, ...]) -> None:
        """Take over what _greenlet._timeline_stop() returns."""
        self.duration, threads, greenlets = found
        self._switches = [thread[-1] for thread in threads]
        places = {greenlet[3]: index for index, greenlet in enumerate(greenlets)}
        for index, thread in enumerate(threads):
            ident, native_id, name, begin, end, before, worked, lost, lost_at, running, data = (
                thread
            )
            was_there = begin == 0 and native_id in self._thread_names
            name = (
                (not end and _thread_name(ident))
                or name
                or (was_there and self._thread_names[native_id])
                or ("MainThread" if native_id == self.process else f"thread {native_id}")
            )
            worked = (worked or None) if end else _processor_time(native_id)
            if worked is not None:
                worked -= self._processor_times.get(native_id, 0) if was_there else before
            first = int.from_bytes(data[8:12], sys.byteorder) if data else places.get(running)
            self.threads.append(
                ThreadTrack(
                    index,
                    name,
                    ident,
                    native_id,
                    begin,
                    end or None,
                    first,
                    len(data) // 16,
                    lost,
                    lost_at if lost else None,
                    worked,
                )
            )
        for index, (given, function, type_name, address, thread, flags) in enumerate(greenlets):
            name = given or ("main" if flags & _MAIN else function or type_name or "greenlet")
            self.greenlets.append(
                GreenletTrack(
                    index,
                    name,
                    function,
                    type_name or "greenlet",
                    address,
                    thread,
                    bool(flags & _MAIN),
                    bool(flags & _SCHEDULER),
                    bool(flags & _WAS_THERE),
                    bool(flags & _HAS_FINISHED),
                )
            )


def _thread_name(ident: int) -> str | None:
    # Not threading.enumerate(), which takes a lock that the caller may hold.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return None if thread is None else inspect._text_of(thread, "name")


def _processor_time(native_id: int) -> int | None:
    """How many nanoseconds a thread of this process has worked, if the system tells."""
    if sys.platform != "linux":
        return None
    try:
        # The clock of a thread, as Linux numbers them (pthread_getcpuclockid() crashes for a thread
        # that has ended).
        return time.clock_gettime_ns(~native_id << 3 | 6)
    except OSError:
        return None


_current: Recording | None = None
_is_prepared = False


def _prepare() -> None:
    """Arrange that no recording goes on in the child of a fork, or after the interpreter."""
    global _is_prepared
    if not _is_prepared:
        _is_prepared = True
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=_discard)
        atexit.register(_discard)


def _discard() -> None:
    global _current
    _current = None
    _greenlet._timeline_discard()


def is_recording() -> bool:
    """Whether a recording runs in this interpreter."""
    return _greenlet._timeline_is_recording()


def start(*, limit: int = DEFAULT_LIMIT) -> None:
    """Begin to record the switches of all threads, until ``stop()``.

    ``limit`` is how many switches are kept, and so bounds the memory: 16 bytes for each. (The first
    switch of a greenlet counts as four.) When it is reached, later switches are only counted.

    Raises ``RuntimeError`` if a recording runs already, or if another profiler has set the hook for
    switches (``PyGreenlet_SetSwitchHook()``); ``ValueError`` for a negative limit.
    """
    global _current
    _prepare()
    recording = Recording()
    # Of threads that are there already. Others tell their name when they come.
    for ident, native_id, *_ in _greenlet._list_threads():
        recording._thread_names[native_id] = _thread_name(ident)
        recording._processor_times[native_id] = _processor_time(native_id) or 0
    _greenlet._timeline_start(limit, functools.partial, functools.partial.func)
    _current = recording


def stop() -> Recording:
    """End the recording and return it. Raises ``RuntimeError`` if none runs."""
    global _current
    found = _greenlet._timeline_stop()
    recording, _current = _current or Recording(), None
    recording._fill(found)
    return recording


@contextmanager
def record(
    path: str | os.PathLike[str] | None = None, *, limit: int = DEFAULT_LIMIT
) -> Iterator[Recording]:
    """Record while the block runs; with a ``path``, save it there at the end.

    The block gets the recording, which is empty until the block has ended. Raises as ``start()``
    and ``Recording.save()`` do.
    """
    global _current
    start(limit=limit)
    recording = _current or Recording()
    try:
        yield recording
    finally:
        # Other code may have stopped it already.
        if _current is recording:
            stop()
            if path is not None:
                recording.save(path)
