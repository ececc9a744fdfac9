"""What tests share that look at a process from outside: programs to look at, and the tool."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from greenlet import _memory
from helpers import TIME_SCALE, Outcome

PROGRAM = Path(__file__).with_name("outside_target.py")


@pytest.fixture(scope="module", autouse=True)
def memory_can_be_read() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            _memory.Process(process.pid).close()
        except _memory.OutsideError as failure:
            pytest.skip(str(failure))
        finally:
            process.kill()


class Target:
    """A process with outside_target.py, and what it has told of itself."""

    def __init__(self, process: subprocess.Popen[str], threads: list[dict[str, Any]]) -> None:
        self.process = process
        self.pid = process.pid
        self.threads = threads


@contextlib.contextmanager
def target(
    how: str,
    folder: Path,
    *,
    python: str | Path = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Iterator[Target]:
    """Run that program until it has told of itself. It is killed at the end."""
    told = folder / f"told-{time.monotonic_ns()}.json"
    process = subprocess.Popen(
        [python, PROGRAM, told, how],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 30 * TIME_SCALE
        while not told.exists():
            assert process.poll() is None, "the program has ended"
            assert time.monotonic() < end, "the program does not begin"
            time.sleep(0.01)
        yield Target(process, json.loads(told.read_text()))
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def script(source: str, *args: str, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run another program until it prints a line; gives the number of the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "the program has ended"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def core_of(folder: Path, **options: Any) -> tuple[Path, list[dict[str, Any]]]:
    """A core file that the kernel has written, and what the process had told of itself."""
    with target("aborts", folder, **options) as one:
        one.process.wait(60)
    found = [*folder.glob("core*")]
    if not found:
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        pytest.skip(f"the kernel does not write core files into this folder, but: {pattern}")
    return found[0], one.threads


def tool(*arguments: object, python: str | Path = sys.executable, timeout: float = 60) -> Outcome:
    """Run ``python -m greenlet``."""
    done = subprocess.run(
        [python, "-m", "greenlet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout * TIME_SCALE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def told_by_tool(*arguments: object, **options: Any) -> list[dict[str, Any]]:
    """What ``python -m greenlet dump`` tells."""
    outcome = tool("dump", *arguments, **options)
    assert outcome.returncode == 0, outcome.stderr
    threads: list[dict[str, Any]] = json.loads(outcome.stdout)
    return threads


def without_running(threads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the stacks of what runs: they have changed since the process told them."""
    return [
        {
            **thread,
            "greenlets": [
                {**one, "stack": [] if one["state"] == "running" else one["stack"]}
                for one in thread["greenlets"]
            ],
        }
        for thread in threads
    ]


def without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x…", text)
