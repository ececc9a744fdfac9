"""Servers, queues, locks, timeouts and threads of gevent, killed at random.

python soak_gevent.py SECONDS SEED
"""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import gevent
from gevent import event, lock, pool, queue, server, socket
from gevent.threadpool import ThreadPool
from greenlet import greenlet
from soaking import Soak

TASKS = 60
PAUSE = 0.5  # seconds that a task sleeps between two steps, on average


class Services:
    """What the tasks use, and the tasks."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.chance = soak.chance
        self.handlers = pool.Pool()
        self.server = server.StreamServer(("127.0.0.1", 0), self.echo, spawn=self.handlers)
        self.server.start()
        self.queue: Any = queue.Queue(10)
        self.locks = [lock.RLock() for _ in range(4)]
        self.threads = ThreadPool(3)
        self.tasks = pool.Pool()

    def echo(self, sock: Any, address: object) -> None:
        with sock:
            while data := sock.recv(4096):
                sock.sendall(data)

    def pause(self) -> None:
        gevent.sleep(self.chance.uniform(0, 2 * PAUSE))
        self.soak.done += 1

    def client(self) -> None:
        with suppress(OSError), socket.create_connection(self.server.address) as sock:
            for number in range(self.chance.randrange(1, 20)):
                sent = f"message {number}".encode().ljust(64)
                sock.sendall(sent)
                received = b""
                while len(received) < 64:
                    part = sock.recv(64 - len(received))
                    if not part:
                        return  # its handler was killed
                    received += part
                if received != sent:
                    self.soak.fault(f"sent {sent!r}, received {received!r}")
                self.pause()

    def producer(self) -> None:
        for number in range(self.chance.randrange(10)):
            self.queue.put(number)
            self.pause()

    def consumer(self) -> None:
        for _ in range(self.chance.randrange(10)):
            with gevent.Timeout(2 * PAUSE, False):
                self.queue.get()
            self.pause()

    def locker(self) -> None:
        first, second = sorted(self.chance.sample(range(4), 2))
        with self.locks[first]:
            self.pause()
            with self.locks[second]:
                self.pause()

    def family(self) -> None:
        """Start children; one of them is linked, one waits for an event that never comes."""
        done = event.AsyncResult()
        child = gevent.spawn(self.pause)
        child.link(done)
        waiting = gevent.spawn(event.Event().wait)
        try:
            done.get(timeout=10 * PAUSE)
        except gevent.Timeout:
            pass
        finally:
            gevent.killall([child, waiting], block=False)

    def in_thread(self) -> None:
        if self.threads.apply(sum, ([1, 2, 3],)) != 6:
            self.soak.fault("a thread of the pool returned another result")
        self.pause()

    def clean_up(self) -> None:
        """Wait in a finally block, also when it is killed."""
        try:
            self.pause()
        finally:
            gevent.sleep(0.01)

    def make_garbage(self) -> None:
        """Leave a waiting greenlet to which only itself refers. A collection has to find it.

        It is no greenlet of gevent: no collection sees what gevent's compiled functions refer to.
        """
        hub = gevent.get_hub()
        waiting: Any = greenlet(lambda: hub.switch(), hub)
        waiting.switch()
        waiting.itself = waiting
        self.pause()

    def start(self) -> None:
        kinds = (
            self.client,
            self.client,
            self.producer,
            self.consumer,
            self.locker,
            self.family,
            self.in_thread,
            self.clean_up,
            self.make_garbage,
        )
        self.tasks.spawn(self.chance.choice(kinds))


def main() -> None:
    soak = Soak()
    services = Services(soak)
    chance = soak.chance
    while soak.goes_on():
        while len(services.tasks) < TASKS:
            services.start()
        gevent.sleep(0.05)
        if chance.randrange(10) == 0:
            groups = [group for group in (services.tasks, services.handlers) if len(group)]
            killed = chance.choice(list(chance.choice(groups)))
            killed.kill(block=bool(chance.randrange(2)), timeout=10 * PAUSE)
            soak.kills += 1
        if chance.randrange(40) == 0:
            soak.collect()
    services.tasks.kill(timeout=60)
    services.server.stop(timeout=10)
    services.handlers.kill(timeout=60)
    services.threads.kill()
    if len(services.tasks) or len(services.handlers):
        soak.fault("greenlets have not ended")
    gc.collect()
    soak.finish()


if __name__ == "__main__":
    main()
