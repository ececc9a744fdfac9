"""The example's echo server, its clients killed at random: python soak_echo.py SECONDS SEED."""

from __future__ import annotations

import gc
import heapq
import itertools
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from greenlet import getcurrent, greenlet
from soaking import Soak

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
import echo_server

CLIENTS = 60
PAUSE = 0.5  # seconds between two messages of a client, on average


class TimedLoop(echo_server.Loop):
    """The example's loop, with timers; a greenlet that is killed leaves nothing behind in it."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, int, greenlet]] = []
        self.numbers = itertools.count()

    def sleep(self, seconds: float) -> None:
        entry = (time.monotonic() + seconds, next(self.numbers), getcurrent())
        heapq.heappush(self.timers, entry)
        try:
            self.hub.switch()
        finally:
            if entry in self.timers:
                self.timers.remove(entry)
                heapq.heapify(self.timers)

    def wait(self, sock: socket.socket, event: int) -> None:
        self.selector.register(sock, event, getcurrent())
        try:
            self.hub.switch()
        finally:
            with suppress(KeyError, ValueError):  # make_garbage() has, and the socket is closed
                self.selector.unregister(sock)

    def turn(self) -> None:
        """Wait for sockets and timers once, and resume who is ready."""
        timeout = 0.0 if self.ready else 0.2
        if self.timers:
            timeout = max(0.0, min(timeout, self.timers[0][0] - time.monotonic()))
        ready = [key.data for key, _ in self.selector.select(timeout)]
        while self.timers and self.timers[0][0] <= time.monotonic():
            ready.append(heapq.heappop(self.timers)[2])
        ready += self.ready
        self.ready.clear()
        for task in ready:
            if not task.dead:
                task.switch()


class Echo:
    """Server and clients in one loop."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.loop = TimedLoop()
        self.living: set[greenlet] = set()
        listener = socket.create_server((echo_server.HOST, 0), backlog=256)
        self.address = listener.getsockname()
        self.server = self.spawn(self.serve, echo_server.Stream(self.loop, listener))
        self.living.discard(self.server)

    def spawn(self, function: Callable[..., object], *args: object) -> greenlet:
        def task() -> None:
            try:
                function(*args)
            except (OSError, EOFError):
                pass  # the other end was killed
            finally:
                self.living.discard(getcurrent())

        started = greenlet(task, self.loop.hub)
        self.living.add(started)
        self.loop.ready.append(started)
        return started

    def serve(self, listener: echo_server.Stream) -> None:
        while True:
            self.spawn(echo_server.echo, listener.accept())

    def client(self) -> None:
        with socket.socket() as sock:
            stream = echo_server.Stream(self.loop, sock)
            stream.connect(self.address)
            for number in itertools.count():
                sent = f"{sock.getsockname()}, message {number}".encode().ljust(64)
                stream.send(sent)
                if (received := stream.receive_exactly(64)) != sent:
                    self.soak.fault(f"sent {sent!r}, received {received!r}")
                self.soak.done += 1
                self.loop.sleep(self.soak.chance.uniform(0, 2 * PAUSE))

    def run(self) -> None:
        chance = self.soak.chance
        clients: set[greenlet] = set()
        while self.soak.goes_on():
            clients &= self.living
            while len(clients) < CLIENTS:
                clients.add(self.spawn(self.client))
            self.loop.turn()
            if chance.randrange(20) == 0:
                clients.discard(self.kill_one())
            if chance.randrange(100) == 0:
                self.soak.collect()
        for task in (*self.living, self.server):
            task.throw()
        gc.collect()
        if self.loop.selector.get_map():
            self.soak.fault("sockets are left in the selector")

    def kill_one(self) -> greenlet:
        """Kill a client or a greenlet of the server, or leave that to a collection."""
        killed = self.soak.chance.choice(sorted(self.living, key=id))
        self.living.discard(killed)
        self.soak.kills += 1
        if self.soak.chance.randrange(2) or killed in self.loop.ready:
            killed.throw()
        else:
            self.make_garbage(killed)
        return killed

    def make_garbage(self, killed: greenlet) -> None:
        """Leave only references from the greenlet to itself."""
        self.loop.timers = [entry for entry in self.loop.timers if entry[2] is not killed]
        heapq.heapify(self.loop.timers)
        for key in list(self.loop.selector.get_map().values()):
            if key.data is killed:
                self.loop.selector.unregister(key.fileobj)
        killed.itself = killed  # type: ignore[attr-defined]


def main() -> None:
    soak = Soak()
    Echo(soak).run()
    soak.finish()


if __name__ == "__main__":
    main()
