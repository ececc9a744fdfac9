"""The programs in examples/ run to their end, and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from helpers import TIME_SCALE

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example in a child process, or a script that imports the example and breaks it."""
    command = [sys.executable, *(["-c", script] if script else [str(EXAMPLES / name)]), *arguments]
    path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path} if script else None
    timeout = 60 * TIME_SCALE
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def output_of(name: str, *arguments: str) -> str:
    completed = run_example(name, *arguments)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stderr == ""
    return completed.stdout


def table_of(output: str) -> dict[str, str]:
    """The rows of the echo server's table: a name, at least two spaces, a value."""
    return dict(re.findall(r"^(\S.*?) {2,}(\S.*)$", output, re.MULTILINE))


def test_the_echo_server_loses_nothing() -> None:
    table = table_of(output_of("echo_server.py", "--connections", "300", "--messages", "4"))
    assert table["connections open at once"] == "300"
    assert table["messages echoed and checked"] == "1,200"
    # Two greenlets for each connection, and the one that starts all.
    assert table["greenlets"] == "601"
    assert table["lost"] == "nothing"
    assert {"messages per second", "switches per second", "resident memory"} <= table.keys()


def test_the_echo_server_spreads_its_connections_over_several_listeners() -> None:
    script = """
import sys, echo_server
echo_server.CONNECTIONS_PER_LISTENER = 30
sys.exit(echo_server.main())
"""
    completed = run_example("echo_server.py", "--connections", "100", script=script)
    assert completed.returncode == 0, completed.stderr
    assert table_of(completed.stdout)["lost"] == "nothing"


def test_the_echo_server_notices_a_changed_message() -> None:
    script = """
import sys, echo_server
send = echo_server.Stream.send
def change(stream, data):
    send(stream, data.replace(b"connection 7, message 1", b"connection 7, message X"))
echo_server.Stream.send = change
sys.exit(echo_server.main())
"""
    arguments = ("--connections", "20", "--messages", "3")
    completed = run_example("echo_server.py", *arguments, script=script)
    assert completed.returncode == 1
    # Connection 7 gives up at its second message of three.
    assert table_of(completed.stdout)["lost"] == "2"
    assert "connection 7: " in completed.stderr


def test_the_echo_server_notices_a_message_that_never_comes() -> None:
    script = """
import sys, echo_server
echo_server.STALLED_SECONDS = 0.5
send = echo_server.Stream.send
def drop(stream, data):
    if not data.startswith(b"connection 7, message 1"):
        send(stream, data)
echo_server.Stream.send = drop
sys.exit(echo_server.main())
"""
    arguments = ("--connections", "20", "--messages", "3")
    completed = run_example("echo_server.py", *arguments, script=script)
    assert completed.returncode == 1
    assert "stalled, 2 messages lost" in completed.stderr


def test_the_echo_server_refuses_more_connections_than_the_open_file_limit_allows() -> None:
    completed = run_example("echo_server.py", "--connections", str(10**9))
    assert completed.returncode == 2
    assert "1,000,000,000 connections are too many" in completed.stderr


def test_nested_generators() -> None:
    # The pairs that sort() compares differ between releases.
    compared: list[str] = []

    class Item(int):
        def __lt__(self, other: int) -> bool:
            compared.append(f"{int(self)}<{int(other)}")
            return int(self) < int(other)

    sorted(map(Item, (3, 1, 2)))
    assert output_of("nested_generators.py").splitlines() == [
        "moves:       AC AB CB AC BA BC AC",
        "tags:        html body p p b",
        f"comparisons: {' '.join(compared)}",
        "on demand:   AB AC BC AB CA CB AB AC ...",
    ]


def test_dropped_values_end_their_producer() -> None:
    script = """
from nested_generators import Values
def produce(emit):
    try:
        emit(1)
    finally:
        print("ended")
values = Values(produce)
print(next(values))
del values
print("dropped")
"""
    completed = run_example("nested_generators.py", script=script)
    assert completed.stdout.split() == ["1", "ended", "dropped"], completed.stderr


def test_an_exception_in_a_producer_reaches_its_consumer() -> None:
    script = """
from nested_generators import Values
def produce(emit):
    emit(1)
    raise ValueError("from the producer")
values = Values(produce)
print(next(values))
try:
    next(values)
except ValueError as error:
    print(error)
print(list(values))
"""
    completed = run_example("nested_generators.py", script=script)
    assert completed.stdout.splitlines() == ["1", "from the producer", "[]"], completed.stderr


def test_the_scheduler() -> None:
    lines = [line.partition(" s ")[2].split() for line in output_of("scheduler.py").splitlines()]
    assert [number for verb, number, *_ in lines if verb == "put"] == list("12345")
    assert [number for verb, number, *_ in lines if verb == "got"] == list("12345")
    assert ["failed", "on", "purpose"] in lines
    assert lines[-1] == ["total", "15", "produced", "5"]


def test_the_scheduler_reports_a_deadlock() -> None:
    script = """
from scheduler import DeadlockError, Queue, Scheduler
scheduler = Scheduler()
queue = Queue(scheduler, size=1)
waiting = scheduler.spawn(queue.get)
try:
    waiting.join()
except DeadlockError:
    print("deadlock")
"""
    completed = run_example("scheduler.py", script=script)
    assert completed.stdout == "deadlock\n", completed.stderr


def test_await_in_sync() -> None:
    output = output_of("await_in_sync.py")
    match = re.fullmatch(r"400 queries of 0.1 s, 4 in a row, 100 at once: (\d+\.\d) s\n", output)
    assert match, output
    # They would take 40 seconds one after the other.
    assert 0.4 <= float(match[1]) < 10


def test_await_in_sync_shares_context_variables_and_passes_cancellation() -> None:
    script = """
import asyncio, contextvars
from await_in_sync import in_greenlet, wait_for

variable = contextvars.ContextVar("variable")

def synchronous():
    print(variable.get())
    variable.set("changed inside")
    try:
        wait_for(asyncio.sleep(60))
    except asyncio.CancelledError:
        print("cancelled")
        return wait_for(asyncio.sleep(0, "cleaned up"))

async def main():
    variable.set("set outside")
    task = asyncio.current_task()
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    print(await in_greenlet(synchronous))
    print(variable.get())
    try:
        wait_for(asyncio.sleep(0))
    except RuntimeError as error:
        print(error)

asyncio.run(main())
"""
    completed = run_example("await_in_sync.py", script=script)
    assert completed.stdout.splitlines() == [
        "set outside",
        "cancelled",
        "cleaned up",
        "changed inside",
        "wait_for() was called outside of in_greenlet()",
    ], completed.stderr
