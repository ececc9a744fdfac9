"""Files of a recording: the trace event format, and the page."""

import base64
import gzip
import html
import json
import os
import platform
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from . import __version__
from .timeline import GreenletTrack, Recording

#: Up to so many switches the trace events have an arrow for each of them. More than that are too
#: many for the viewers.
MOST_ARROWS = 100_000

Writer = Callable[[Recording, str | os.PathLike[str]], None]


def writer_of(path: str | os.PathLike[str]) -> Writer:
    """Return what writes a file of this name; ValueError if the name does not say."""
    name = os.fspath(path).lower()
    if name.endswith((".json", ".json.gz")):
        return save_trace_events
    if name.endswith((".html", ".htm")):
        return save_page
    raise ValueError(f"the name of a timeline ends in .html, .json or .json.gz, not as in {path!r}")


# --- trace events ---------------------------------------------------------------------------------


def save_trace_events(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write the JSON that Perfetto and Chrome open."""
    if os.fspath(path).lower().endswith(".gz"):
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as file:
            write_trace_events(recording, file)
    else:
        with open(path, "w", encoding="utf-8") as file:
            write_trace_events(recording, file)


def write_trace_events(recording: Recording, file: IO[str]) -> None:
    about = {
        "greenlet": __version__,
        "python": platform.python_version(),
        "program": recording.title,
        "started at": recording.started_at,
        "switches": recording.switches,
        "switches that are missing": recording.lost,
    }
    file.write('{"displayTimeUnit":"ns","otherData":')
    file.write(json.dumps(about))
    file.write(',"traceEvents":[\n')
    # The last one has no comma behind it.
    file.writelines(f"{event},\n" for event in trace_events(recording))
    end = {"ph": "M", "pid": 1, "name": "process_labels", "args": {"labels": "greenlet"}}
    file.write(json.dumps(end))
    file.write("\n]}\n")


def microseconds(time: int) -> str:
    return f"{time // 1000}.{time % 1000:03}"


def trace_events(recording: Recording) -> Iterator[str]:
    """Yield the events as JSON.

    To the viewers the threads are those of process 1. The greenlets of each thread are the threads
    of one more process.
    """

    def names(process: int, name: str, order: int) -> Iterator[str]:
        for what, args in (
            ("process_name", {"name": name}),
            ("process_sort_index", {"sort_index": order}),
        ):
            yield json.dumps({"ph": "M", "pid": process, "name": what, "args": args})

    def names_of_lane(process: int, lane: int, name: str, order: int) -> Iterator[str]:
        for what, args in (
            ("thread_name", {"name": name}),
            ("thread_sort_index", {"sort_index": order}),
        ):
            yield json.dumps({"ph": "M", "pid": process, "tid": lane, "name": what, "args": args})

    yield from names(1, f"threads of {recording.title} ({recording.process})", 0)
    for thread in recording.threads:
        yield from names_of_lane(1, thread.number + 1, thread.name, thread.number)
        yield from names(2 + thread.number, f"greenlets of {thread.name}", 1 + thread.number)
    labels = []
    for one in recording.greenlets:
        label = f"{one.name} #{one.number}"
        labels.append(json.dumps(label))
        yield from names_of_lane(2 + one.thread, one.number + 1, label, one.number)
    has_arrows = recording.switches <= MOST_ARROWS
    arrow = 0
    for thread in recording.threads:
        place = thread.number + 1
        lanes = thread.number + 2
        for begin, end, greenlet, origin, thrown in runs(recording, thread.number):
            name = labels[greenlet]
            at = microseconds(begin)
            common = f'"ph":"X","ts":{at},"dur":{microseconds(end - begin)},"name":{name}'
            args = ""
            if origin is not None and has_arrows:
                cause = ',"exception":true' if thrown else ""
                args = f',"args":{{"from":{labels[origin]}{cause}}}'
            elif thrown:
                args = ',"args":{"exception":true}'
            yield f'{{"pid":1,"tid":{place},{common}{args}}}'
            yield f'{{"pid":{lanes},"tid":{greenlet + 1},{common}{args}}}'
            if origin is not None and has_arrows and origin != greenlet:
                arrow += 1
                # It leaves the slice of the origin, which ends at this moment.
                left = microseconds(max(begin - 1, 0))
                flow = f'"cat":"switch","name":"switch","id":{arrow},"pid":{lanes}'
                yield f'{{"ph":"s","ts":{left},"tid":{origin + 1},{flow}}}'
                yield f'{{"ph":"f","bp":"e","ts":{at},"tid":{greenlet + 1},{flow}}}'


def runs(recording: Recording, thread: int) -> Iterator[tuple[int, int, int, int | None, bool]]:
    """Yield what ran in a thread: begin, end, greenlet, who switched to it, and by an exception."""
    about = recording.threads[thread]
    begin, running = about.begin, about.running
    origin, thrown = None, False
    for at, left, entered in zip(*recording._columns(thread), strict=True):
        moment = at >> 2
        if running is not None:
            yield begin, moment, running, origin, thrown
        begin, running, origin, thrown = moment, entered, left, bool(at & 1)
    if running is not None:
        end = recording.duration if about.end is None else about.end
        if about.complete_until is not None:
            end = about.complete_until
        yield begin, max(begin, end), running, origin, thrown


# --- the page -------------------------------------------------------------------------------------

FOLDER = Path(__file__).with_name("_page")
PLACE = re.compile(r"\{\{([\w.]+)\}\}")


def save_page(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write a page that shows the recording. It holds all that it needs."""
    with open(path, "w", encoding="utf-8") as file:
        # Of the text between places and the places in turns.
        for i, part in enumerate(PLACE.split((FOLDER / "page.html").read_text(encoding="utf-8"))):
            if i % 2 == 0:
                file.write(part)
            elif part == "title":
                file.write(html.escape(recording.title))
            elif part == "recording":
                # In a script element nothing but "<" can end or change it.
                data = json.dumps(as_data(recording), separators=(",", ":"))
                file.write(data.replace("<", "\\u003c"))
            else:
                file.write((FOLDER / part).read_text(encoding="utf-8"))


def as_data(recording: Recording) -> dict[str, Any]:
    """Return the recording as the page reads it."""
    packed, pack = packing()
    strings: dict[str | None, int] = {}

    def number(text: str | None) -> int:
        return strings.setdefault(text, len(strings))

    def column(value: Callable[[GreenletTrack], int], code: str = "I") -> str:
        return pack(array(code, map(value, recording.greenlets)).tobytes())

    greenlets = {
        "count": len(recording.greenlets),
        "name": column(lambda one: number(one.name)),
        "function": column(lambda one: number(one.function)),
        "type": column(lambda one: number(one.type)),
        "thread": column(lambda one: one.thread),
        "flags": column(
            lambda one: one.is_main | one.is_scheduler << 1 | one.was_there << 2 | one.finished << 3
        ),
        "id": column(lambda one: one.id, "d"),
    }
    return {
        "title": recording.title,
        "startedAt": recording.started_at,
        "process": recording.process,
        "duration": recording.duration,
        "switches": recording.switches,
        "lost": recording.lost,
        "completeUntil": recording.complete_until,
        "about": f"greenlet {__version__}, {platform.python_implementation()} "
        f"{sys.version.partition(' ')[0]}",
        "packed": packed,
        "strings": [*strings],
        "greenlets": greenlets,
        "threads": [
            {
                "name": thread.name,
                "native": thread.native_id,
                "begin": thread.begin,
                "end": thread.end,
                "running": thread.running,
                "count": thread.switches,
                "lost": thread.lost,
                "completeUntil": thread.complete_until,
                "cpu": thread.processor_time,
                "data": pack(planes(data)),
            }
            for thread, data in zip(recording.threads, recording._switches, strict=True)
        ],
    }


def planes(switches: bytes) -> bytes:
    """All first bytes, then all second bytes, and so on: so they compress well.

    Of the fields, the step in time and the target. The origin of each switch is the target of the
    one before. (All machines that greenlet runs on store the lowest byte first.)
    """
    return b"".join(switches[byte::16] for byte in (*range(8), *range(12, 16)))


def packing() -> tuple[str, Callable[[bytes], str]]:
    """How bytes become text: deflated, if Python has zlib, and in base64."""
    try:
        import zlib
    except ImportError:
        return "plain", lambda data: base64.b64encode(data).decode()
    return "deflate", lambda data: base64.b64encode(zlib.compress(data, 6)).decode()
