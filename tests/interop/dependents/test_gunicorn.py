"""gunicorn's worker that GUNICORN_WORKER names, gevent or eventlet, under load from wrk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest
from support import EXPECTED_GREENLET, free_port, get, result, running, wait_for, wrk

WORKER = os.environ["GUNICORN_WORKER"]


class Server(NamedTuple):
    """A gunicorn with two workers."""

    url: str
    pid: int
    log: Path

    def workers(self) -> set[str]:
        """Return the ids of the workers that answer."""
        return {get(f"{self.url}/who").split()[1] for _ in range(40)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run the application."""
    log = tmp_path / "gunicorn.log"
    url = f"127.0.0.1:{free_port()}"
    command = ["-m", "gunicorn", "--worker-class", WORKER, "--workers", "2", "--bind", url]
    settings = ["--graceful-timeout", "20", "--timeout", "60", "--no-control-socket"]
    with running(*command, *settings, "wsgi_application:application", log=log) as process:
        url = f"http://{url}"
        wait_for(url, process, log)
        yield Server(url, process.pid, log)
        # Whatever happened, no worker may have died of a signal.
        text = log.read_text()
        assert "was sent SIG" not in text.replace("was sent SIGTERM", ""), text
        assert "Traceback" not in text, text


def test_it_runs_on_the_expected_greenlet(server: Server) -> None:
    assert get(f"{server.url}/who").split()[0] == EXPECTED_GREENLET


def test_every_request_under_load_is_answered(server: Server) -> None:
    load = result(wrk(server.url, seconds=4, connections=50))
    assert load.requests > 200
    assert (load.bad_statuses, load.connect_errors, load.timeouts) == (0, 0, 0), load.output


def test_requests_that_wait_do_not_wait_for_each_other(server: Server) -> None:
    load = result(wrk(f"{server.url}/wait", seconds=4, connections=200))
    # One after the other, two workers would answer 4 * 2 / 0.02 of them.
    assert load.requests > 600, load.output
    assert (load.bad_statuses, load.connect_errors, load.timeouts) == (0, 0, 0), load.output


def test_streams_arrive_complete_beside_a_load(server: Server) -> None:
    load = wrk(server.url, seconds=4, connections=20)
    expected = "".join(f"{number}\n" for number in range(20))
    with ThreadPoolExecutor(10) as pool:
        streams = list(pool.map(get, [f"{server.url}/stream"] * 60))
    assert set(streams) == {expected}
    result(load)


def test_large_bodies_come_back_as_they_were(server: Server) -> None:
    def echo(number: int) -> bool:
        body = bytes(97 + (number + i) % 26 for i in range(20_000)) * 10
        with urlopen(Request(f"{server.url}/echo", body), timeout=30) as answer:
            same: bool = answer.read() == body
        return same

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(echo, range(60)))


def test_a_graceful_reload_under_load_loses_no_request(server: Server) -> None:
    before = server.workers()
    load = wrk(f"{server.url}/wait", seconds=8, connections=40)
    time.sleep(2)
    os.kill(server.pid, signal.SIGHUP)
    done = result(load)
    assert done.requests > 200, done.output
    assert (done.bad_statuses, done.connect_errors, done.timeouts) == (0, 0, 0), done.output
    deadline = time.monotonic() + 30
    while before & server.workers():
        assert time.monotonic() < deadline, server.log.read_text()


def test_it_reloads_again_and_again(server: Server) -> None:
    load = wrk(f"{server.url}/wait", seconds=10, connections=20)
    for _ in range(4):
        time.sleep(1.5)
        os.kill(server.pid, signal.SIGHUP)
    done = result(load)
    assert (done.bad_statuses, done.connect_errors) == (0, 0), done.output
    assert get(f"{server.url}/who").split()[0] == EXPECTED_GREENLET


def test_it_ends_in_time_when_told_to_under_load(server: Server) -> None:
    load = wrk(f"{server.url}/wait", seconds=4, connections=20)
    time.sleep(1)
    os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while "Shutting down: Master" not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.2)
    load.communicate(timeout=60)
