"""What holds for each recording, and for each file of trace events."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from greenlet.timeline import Recording


def check(recording: Recording) -> None:
    """Each thread goes from one greenlet to the next, and no greenlet runs after its end."""
    assert [thread.number for thread in recording.threads] == [*range(len(recording.threads))]
    assert [one.number for one in recording.greenlets] == [*range(len(recording.greenlets))]
    finished = {one.number for one in recording.greenlets if one.finished}
    seen_finished: set[int] = set()
    for thread in recording.threads:
        events = [*recording.events(thread.number)]
        assert len(events) == thread.switches
        at, running = thread.begin, thread.running
        dead: set[int] = set()
        for event in events:
            assert at <= event.time <= recording.duration, (thread, event)
            assert event.origin == running, (thread, event)
            assert event.target not in dead
            for one in (event.origin, event.target):
                assert recording.greenlets[one].thread == thread.number
            if event.finished:
                dead.add(event.origin)
            at, running = event.time, event.target
        if thread.end is not None:
            assert at <= thread.end <= recording.duration
        seen_finished |= dead
    assert seen_finished == finished
    merged = [event.time for event in recording.events()]
    assert merged == sorted(merged)
    assert len(merged) == recording.switches


def check_trace_events(data: Any, recording: Recording, *, arrows: bool) -> None:
    """The rules of the trace event format, for the events that we write."""
    assert data["displayTimeUnit"] in ("ms", "ns")
    events = data["traceEvents"]
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    named: set[tuple[int, int | None]] = set()
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert event["ph"] in {"X", "M", "s", "f"}
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in {
                *("process_name", "process_sort_index", "process_labels"),
                *("thread_name", "thread_sort_index"),
            }
            assert isinstance(event["args"], dict)
            if event["name"].endswith("_name"):
                assert isinstance(event["args"]["name"], str)
                named.add((event["pid"], event.get("tid")))
            continue
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            lanes[event["pid"], event["tid"]].append((event["ts"], event["dur"]))
        else:
            assert event["cat"] == "switch"
            flows[event["id"]].append(event)
            assert event["ph"] != "f" or event["bp"] == "e"
    # Each lane has a name, as has its process, and its slices do not overlap.
    for (process, lane), slices in lanes.items():
        assert (process, lane) in named
        assert (process, None) in named
        for (begin, length), (after, _) in zip(slices, slices[1:], strict=False):
            assert begin + length <= after + 0.0005
    # An arrow begins in a slice and ends at the beginning of one.
    assert len(flows) == (
        sum(event.origin != event.target for event in recording.events()) if arrows else 0
    )
    for leaves, arrives in flows.values():
        assert (leaves["ph"], arrives["ph"]) == ("s", "f")
        assert leaves["ts"] <= arrives["ts"]
        assert any(
            start - 0.001 <= leaves["ts"] <= start + length
            for start, length in lanes[leaves["pid"], leaves["tid"]]
        )
        assert any(start == arrives["ts"] for start, _ in lanes[arrives["pid"], arrives["tid"]])
    runs = Counter(process for (process, _), slices in lanes.items() for _ in slices)
    ran = sum(thread.running is not None for thread in recording.threads)
    assert runs[1] == recording.switches + ran
    assert sum(runs.values()) == 2 * runs[1]
