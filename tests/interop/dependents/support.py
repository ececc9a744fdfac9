"""What the tests of this folder share: servers on loopback, child processes, and wrk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

PROGRAMS = Path(__file__).parent / "programs"
# tools/dependents sets it, so the tests can check that they run on this greenlet.
EXPECTED_GREENLET = os.environ["EXPECTED_GREENLET"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def get(url: str) -> str:
    """Return the body of a page."""
    with urlopen(url, timeout=20) as answer:
        body: bytes = answer.read()
    return body.decode()


@contextmanager
def running(*arguments: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run this python with arguments in the background; whatever it started ends with it."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROGRAMS,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 40) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            get(url)
            return
        except (URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no server at {url}\n{log.read_text()}") from None
            time.sleep(0.1)


class Load(NamedTuple):
    """What wrk says at its end."""

    requests: int
    per_second: float
    bad_statuses: int
    connect_errors: int
    timeouts: int
    output: str


def wrk(url: str, *, seconds: int, connections: int) -> subprocess.Popen[str]:
    """Start a load on a server."""
    return subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def result(load: subprocess.Popen[str]) -> Load:
    """Wait for a load's end."""
    output, _ = load.communicate(timeout=120)

    def number(pattern: str) -> float:
        match = re.search(pattern, output)
        return float(match[1]) if match else 0

    assert load.returncode == 0, output
    return Load(
        int(number(r"(\d+) requests in")),
        number(r"Requests/sec: *([\d.]+)"),
        int(number(r"Non-2xx or 3xx responses: (\d+)")),
        int(number(r"Socket errors: connect (\d+)")),
        int(number(r"timeout (\d+)")),
        output,
    )
