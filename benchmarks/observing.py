#!/usr/bin/env python3
"""What a look from outside takes, and what it costs the program that is looked at.

    python benchmarks/observing.py server     # a gevent server with 1,000 greenlets; needs gevent
    python benchmarks/observing.py inside     # greenlet.inspect: lists and counts

`server` looks at the server while it answers requests, when it does not help, while it sits in C
code, and in a core file. All of them have to show the same tree. Then it measures requests per
second in turns: for ten seconds that begin with a look, and for ten seconds without one.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WAITING = 1000
CLIENTS = 8
SILENT = {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}  # it does not run scripts of others


def serve() -> None:
    """Answer bytes, while a thousand other greenlets wait. SIGUSR1 makes it wait in C."""
    import ctypes

    import gevent
    from gevent import event
    from gevent.server import StreamServer

    never = event.Event()

    def idle() -> None:
        never.wait()

    def answer(client: socket.socket, _: object) -> None:
        while client.recv(1):
            client.sendall(b"x")

    waiting = [gevent.spawn(idle) for _ in range(WAITING)]
    server = StreamServer(("127.0.0.1", 0), answer)
    server.start()
    gevent.sleep(0.1)
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    signal.signal(signal.SIGUSR1, lambda *_: ctypes.CDLL(None).pause())  # in the hub
    print(server.server_port, flush=True)
    gevent.joinall(waiting)


class Server:
    def __init__(self, folder: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "serve"],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            cwd=folder,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.clients = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(CLIENTS)]

    def requests(self, seconds: float) -> float:
        """Requests per second."""
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for client in self.clients:
                client.sendall(b"x")
            for client in self.clients:
                client.recv(1)
            count += len(self.clients)
        return count / seconds

    def end(self, by: int = signal.SIGKILL) -> None:
        self.process.send_signal(by)
        self.process.wait()


def look(target: object) -> tuple[float, str]:
    """The seconds that `pstree` takes, and what it shows."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "greenlet", "pstree", str(target)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.monotonic() - begin, shown


def comparable(tree: str) -> str:
    """Without numbers of processes and objects, and without what the hub runs at the moment."""
    tree = re.sub(r"thread \d+|0x[0-9a-f]+", "", tree)
    hub = re.compile(r"( Hub +)(?:running|suspended)\n(?:[│ ]+\S.*:\d+\n)*")
    return hub.sub(r"\1\n", tree)


def looks(folder: str) -> None:
    trees = {}
    for label, environment in (("answers", {}), ("does not answer", SILENT)):
        server = Server(folder, **environment)
        server.requests(0.2)
        seconds, trees[label] = min(look(server.pid) for _ in range(3))
        print(f"pstree of a server that {label:<16} {seconds * 1e3:7.0f} ms")
        server.end()
    server = Server(folder)
    server.requests(0.2)
    server.process.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    seconds, trees["in C"] = look(server.pid)
    print(f"pstree of a server that {'sits in C':<16} {seconds * 1e3:7.0f} ms")
    server.end()
    server = Server(folder)
    server.requests(0.2)
    server.end(signal.SIGABRT)
    cores = [*Path(folder).glob("core*")]
    if cores:
        seconds, trees["core"] = look(cores[0])
        print(f"pstree of its core file {'':<16} {seconds * 1e3:7.0f} ms")
    else:
        print("the kernel writes no core files into the folder of a process here")
    kinds = {comparable(tree) for tree in trees.values()}
    print("all of them show the same tree" if len(kinds) == 1 else "\n---\n".join(kinds))


def rates(folder: str, turns: int, seconds: float) -> None:
    server = Server(folder)
    server.requests(2)
    found: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(2 * turns):
        # with, without, without, with, ...
        kind = "with" if turn % 4 in (0, 3) else "without"
        looking = None
        if kind == "with":
            command = [sys.executable, "-m", "greenlet", "pstree", str(server.pid)]
            looking = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        found[kind].append(server.requests(seconds))
        if looking is not None:
            assert looking.wait() == 0
    server.end()
    for kind, each in found.items():
        mean, spread = statistics.mean(each), statistics.stdev(each)
        print(f"{kind:>7} a look: {mean:7.0f} requests/s, ± {spread:.0f} ({len(each)} turns)")


def best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def inside() -> None:
    from greenlet import getcurrent, greenlet, inspect

    main = getcurrent()
    for count in (20_000, 100_000):
        kept = [greenlet(main.switch) for _ in range(count)]
        for each in kept:
            each.switch()
        listed, counted = best(inspect.all_greenlets, 10), best(inspect.count, 1000)
        assert len(inspect.all_greenlets()) == count + 1 == inspect.count().alive
        print(
            f"{count:,} waiting greenlets: all_greenlets() {listed * 1e3:.2f} ms, "
            f"count() {counted * 1e6:.1f} µs"
        )
        for each in kept:
            each.switch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("server", "inside", "serve"))
    parser.add_argument("--turns", type=int, default=6, help="of each kind, at least 2")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    if options.what == "serve":
        serve()
    elif options.what == "inside":
        inside()
    else:
        with tempfile.TemporaryDirectory() as folder:
            looks(folder)
            rates(folder, options.turns, options.seconds)


if __name__ == "__main__":
    main()
