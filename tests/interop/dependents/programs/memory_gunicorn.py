"""What gunicorn's gevent worker keeps in memory with an application of Flask's.

First wrk asks as fast as it can; then there are many connections that are kept alive and wait.
Prints requests per second, and megabytes of the worker, as JSON.
"""

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("EXPECTED_GREENLET", "")
sys.path.insert(0, str(Path(__file__).parent.parent))

from support import free_port, get, result, running, wait_for, wrk

CONNECTIONS = 200  # of wrk
IDLE = 800
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAPS = 4.0  # seconds: memory is given back some time after it was used


def worker_of(process: int) -> int:
    """Return the only child of a process."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0])


def megabytes(process: int) -> float:
    """Return what of a process is in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


def keep_alive(port: int) -> socket.socket:
    """Ask once, and stay connected."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(REQUEST)
    answer = b""
    while b"</ul>" not in answer:
        received = connection.recv(65536)
        assert received, answer
        answer += received
    return connection


def main() -> None:
    """Measure, and print."""
    log = Path(tempfile.mkdtemp()) / "log"
    port = free_port()
    bind = f"127.0.0.1:{port}"
    arguments = ["-m", "gunicorn", "--worker-class", "gevent", "--bind", bind, "--workers", "1"]
    arguments += ["--worker-connections", "2000", "--keep-alive", "120", "--no-control-socket"]
    arguments += ["--graceful-timeout", "2", "flask_application:application"]
    with running(*arguments, log=log) as process:
        wait_for(f"http://{bind}", process, log)
        worker = worker_of(process.pid)
        before = megabytes(worker)
        load = result(wrk(f"http://{bind}/", seconds=8, connections=CONNECTIONS))
        assert not load.bad_statuses, load.output
        connections = [keep_alive(port) for _ in range(IDLE)]
        ends = time.monotonic() + LAPS
        while time.monotonic() < ends:  # a server is never quite at rest
            get(f"http://{bind}/json")
            time.sleep(0.1)
        waiting = megabytes(worker)
        for connection in connections:
            connection.close()
        for _ in range(20):
            get(f"http://{bind}/json")
            time.sleep(0.1)
        after = megabytes(worker)
    print(
        json.dumps(
            {
                "Flask, GET /": load.per_second,
                "at first, MB": before,
                f"{IDLE} idle connections after load, MB": waiting,
                "when they have ended, MB": after,
            }
        )
    )


main()
