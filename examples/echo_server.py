#!/usr/bin/env python3
"""A TCP echo server and thousands of clients, every one of them plain blocking code in a greenlet.

    python examples/echo_server.py [--connections N] [--messages N]

Each connection has two greenlets, one at either end. None of them knows of the others: they call
`receive` and `send` as in a threaded program, and where a thread would block in the kernel, a
greenlet switches to the loop. All connections are open before the first message is sent, and stay
open until the last one is checked. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from greenlet import getcurrent, greenlet

HOST = "127.0.0.1"
MESSAGE_BYTES = 64

# A connection is told from another by both its addresses, so the kernel can hand out the same
# client port once per listening port. It has about 28,000 of them (net.ipv4.ip_local_port_range).
CONNECTIONS_PER_LISTENER = 20_000

# Both ends of a connection are in this process; the rest is for listeners, the selector, stdio.
FILES_PER_CONNECTION = 2
SPARE_FILES = 64

# Where the open-file limit is in the millions the demonstration still has to end soon. Before Linux
# 6.13 each stack's guard page splits a memory mapping, and a process may have 65,530 of those
# (vm.max_map_count): room for some 32,000 greenlets.
CONNECTIONS_AT_MOST = 50_000
CONNECTIONS_AT_MOST_BEFORE_LINUX_6_13 = 15_000

# Nothing at all happens for this long while greenlets still wait: a message has been lost.
STALLED_SECONDS = 20.0


class Loop:
    """Runs greenlets; while all of them wait for sockets, waits for all those sockets at once.

    The greenlet that makes the loop and calls `run` is its hub. Every task is a child of the hub:
    it switches to the hub to wait, and the hub gets control back too when the task ends.
    """

    def __init__(self) -> None:
        self.hub = getcurrent()
        self.selector = selectors.DefaultSelector()
        self.ready: deque[greenlet] = deque()
        self.tasks = 0
        self.resumed = 0

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Let `function(*args)` run as a task of its own."""

        def task() -> None:
            function(*args)
            self.tasks -= 1

        self.tasks += 1
        self.ready.append(greenlet(task, self.hub))

    def pause(self) -> None:
        """Let the others run, then go on."""
        self.ready.append(getcurrent())
        self.hub.switch()

    def wait(self, sock: socket.socket, event: int) -> None:
        """Return when the socket is ready to be read or written."""
        self.selector.register(sock, event, getcurrent())
        self.hub.switch()
        self.selector.unregister(sock)

    def run(self) -> None:
        """Run until every task has ended, or nothing happens any more."""
        while self.tasks:
            events = self.selector.select(0 if self.ready else STALLED_SECONDS)
            self.ready.extend(key.data for key, _ in events)
            if not self.ready:
                return
            # Only those that are ready now: what they make ready waits for the next round, so that
            # no crowd of busy greenlets keeps the sockets waiting.
            for _ in range(len(self.ready)):
                self.resumed += 1
                self.ready.popleft().switch()


class Gate:
    """Opens for all when the expected number of greenlets has arrived."""

    def __init__(self, loop: Loop, expected: int) -> None:
        self.loop = loop
        self.expected = expected
        self.waiting: list[greenlet] = []

    def arrive(self) -> None:
        """Count, and do not wait."""
        self.expected -= 1
        if self.expected == 0:
            self.loop.ready.extend(self.waiting)

    def pass_through(self) -> None:
        """Count, and wait for the rest."""
        self.waiting.append(getcurrent())
        self.arrive()
        self.loop.hub.switch()


class Stream:
    """A socket that can be used as if it blocked: only the greenlet that calls it waits."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.loop = loop
        self.sock = sock

    def connect(self, address: tuple[str, int]) -> None:
        try:
            self.sock.connect(address)
        except BlockingIOError:
            self.loop.wait(self.sock, selectors.EVENT_WRITE)
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error)) from None

    def accept(self) -> Stream:
        while True:
            try:
                return Stream(self.loop, self.sock.accept()[0])
            except BlockingIOError:
                self.loop.wait(self.sock, selectors.EVENT_READ)

    def receive(self, most: int) -> bytes:
        """What has come, at least one byte; nothing if the other end is closed."""
        while True:
            try:
                return self.sock.recv(most)
            except BlockingIOError:
                self.loop.wait(self.sock, selectors.EVENT_READ)

    def receive_exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self.receive(count - len(received))
            if not part:
                raise EOFError("the other end closed the connection")
            received += part
        return received

    def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.loop.wait(self.sock, selectors.EVENT_WRITE)


def serve(loop: Loop, listener: Stream, connections: int) -> None:
    """The server: a greenlet for each connection that comes."""
    with listener.sock:
        for _ in range(connections):
            loop.spawn(echo, listener.accept())


def echo(stream: Stream) -> None:
    with stream.sock:
        while data := stream.receive(4096):
            stream.send(data)


class Clients:
    """All the clients, what they share, and what they found."""

    def __init__(self, loop: Loop, connections: int, messages: int) -> None:
        self.loop = loop
        self.connections = connections
        self.messages = messages
        self.checked = 0
        self.faults: list[str] = []
        # Those who pass: the clients, and the conductor, which takes the time.
        self.all_open = Gate(loop, connections + 1)
        self.all_checked = Gate(loop, connections + 1)
        self.moments: list[Moment] = []

    def conduct(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Start the clients, a few at a time: more would overflow the listeners' queues."""
        for number in range(self.connections):
            self.loop.spawn(self.client, number, addresses[number % len(addresses)])
            if number % 100 == 99:
                self.loop.pause()
        for gate in (self.all_open, self.all_checked):
            gate.pass_through()
            self.moments.append(Moment.now(self.loop))

    def client(self, number: int, address: tuple[str, int]) -> None:
        """One client: connect, wait until all have, exchange messages, wait until all have."""
        with socket.socket() as sock:
            stream = Stream(self.loop, sock)
            with self.faults_noted(number):
                stream.connect(address)
            self.all_open.pass_through()
            with self.faults_noted(number):
                self.exchange(number, stream)
            self.all_checked.pass_through()

    def exchange(self, number: int, stream: Stream) -> None:
        for message in range(self.messages):
            sent = f"connection {number}, message {message}".encode().ljust(MESSAGE_BYTES)
            stream.send(sent)
            received = stream.receive_exactly(MESSAGE_BYTES)
            if received != sent:
                raise EOFError(f"sent {sent!r}, received {received!r}")
            self.checked += 1

    @contextmanager
    def faults_noted(self, number: int) -> Iterator[None]:
        """A fault is noted, and the client goes on to the next gate, where the others wait."""
        try:
            yield
        except (OSError, EOFError) as fault:
            self.faults.append(f"connection {number}: {fault}")


class Moment(NamedTuple):
    """What is measured when a gate opens."""

    time: float
    resumed: int
    greenlets: int
    resident: int

    @classmethod
    def now(cls, loop: Loop) -> Moment:
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * resource.getpagesize()
        return cls(time.perf_counter(), loop.resumed, loop.tasks, resident)


def run(connections: int, messages: int) -> Clients:
    """Open the connections, exchange the messages, close everything."""
    loop = Loop()
    clients = Clients(loop, connections, messages)
    listeners = [
        socket.create_server((HOST, 0), backlog=4096)
        for _ in range(0, connections, CONNECTIONS_PER_LISTENER)
    ]
    for index, listener in enumerate(listeners):
        share = len(range(index, connections, len(listeners)))
        loop.spawn(serve, loop, Stream(loop, listener), share)
    loop.spawn(clients.conduct, [listener.getsockname() for listener in listeners])
    loop.run()
    return clients


def report(clients: Clients) -> bool:
    """Print the table; return whether all is well."""
    lost = clients.connections * clients.messages - clients.checked
    for fault in clients.faults[:5]:
        print(fault, file=sys.stderr)
    if len(clients.moments) < 2:
        print(f"stalled, {lost:,} messages lost: no socket becomes ready any more", file=sys.stderr)
        return False
    begin, end = clients.moments
    seconds = end.time - begin.time
    resident = max(begin.resident, end.resident)
    # A greenlet that is resumed switches back sooner or later, so there are two for each.
    rows = {
        "connections open at once": f"{clients.connections:,}",
        "greenlets": f"{begin.greenlets:,}",
        "messages echoed and checked": f"{clients.checked:,}",
        "messages per second": f"{clients.checked / seconds:,.0f}",
        "switches per second": f"{2 * (end.resumed - begin.resumed) / seconds:,.0f}",
        "resident memory": f"{resident / 2**20:,.0f} MiB",
        "lost": f"{lost:,}" if lost else "nothing",
    }
    for name, value in rows.items():
        print(f"{name:<28}{value:>12}")
    return not lost and not clients.faults


def connections_at_most() -> int:
    """How many to open where the open-file limit would allow more than a demonstration needs."""
    major, minor = os.uname().release.split(".")[:2]
    if (int(major), int(minor)) < (6, 13):
        return CONNECTIONS_AT_MOST_BEFORE_LINUX_6_13
    return CONNECTIONS_AT_MOST


def positive(text: str) -> int:
    """For argparse: a number that is at least 1."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Thousands of connections in one thread.")
    parser.add_argument(
        "--connections", type=positive, metavar="N", help="how many (default: as many as possible)"
    )
    parser.add_argument(
        "--messages", type=positive, metavar="N", default=5, help="for each connection (default: 5)"
    )
    options = parser.parse_args()

    # The soft limit can be raised to the hard one without any privilege.
    soft, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    allowed = (limit - SPARE_FILES) // FILES_PER_CONNECTION
    connections = options.connections or min(allowed, connections_at_most())
    print(f"open-file limit {limit:,} (was {soft:,}): {allowed:,} connections can be open at once")
    if connections > allowed:
        parser.error(f"{connections:,} connections are too many")

    print(f"opening {connections:,}, {options.messages:,} messages each", flush=True)
    return 0 if report(run(connections, options.messages)) else 1


if __name__ == "__main__":
    sys.exit(main())
