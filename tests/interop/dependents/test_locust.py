"""locust against a local server of gevent's, which runs on the same greenlet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import PROGRAMS, free_port, running, wait_for

# gevent's server with the application that gunicorn's workers get.
SERVER = """\
from gevent import monkey; monkey.patch_all()
import sys
from gevent.pywsgi import WSGIServer
from wsgi_application import application
WSGIServer(("127.0.0.1", int(sys.argv[1])), application, log=None).serve_forever()
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the server."""
    log = tmp_path_factory.mktemp("server") / "log"
    port = free_port()
    with running("-c", SERVER, str(port), log=log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, log)
        yield url


def locust(host: str, *arguments: str, seconds: int = 5) -> list[dict[str, Any]]:
    """Run locust without its page; return its statistics."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", "locustfile.py", "--headless", "--json"),
            *("--host", host, "-t", f"{seconds}s", "--stop-timeout", "10", *arguments),
        ],
        cwd=PROGRAMS,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    statistics: list[dict[str, Any]] = []
    position = done.stdout.index("[")
    while position < len(done.stdout):  # worker processes print an empty list each
        part, position = json.JSONDecoder().raw_decode(done.stdout, position)
        statistics += part
        while done.stdout[position : position + 1].isspace():
            position += 1
    return statistics


def check(statistics: list[dict[str, Any]], *, at_least: int) -> None:
    """Check that every request succeeded, and each kind was made."""
    assert {entry["name"] for entry in statistics} == {"/page", "/wait", "/echo"}
    assert sum(entry["num_failures"] for entry in statistics) == 0, statistics
    assert sum(entry["num_requests"] for entry in statistics) >= at_least, statistics


def test_a_few_users(host: str) -> None:
    check(locust(host, "-u", "10", "-r", "10"), at_least=100)


def test_many_users(host: str) -> None:
    check(locust(host, "-u", "300", "-r", "150", seconds=10), at_least=500)


def test_users_spread_over_processes(host: str) -> None:
    port = str(free_port())
    distributed = ("--processes", "2", "--master-port", port, "--master-bind-port", port)
    check(locust(host, "-u", "40", "-r", "40", *distributed, seconds=8), at_least=100)
