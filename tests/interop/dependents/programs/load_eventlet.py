"""A fixed load on eventlet: operations per second, as JSON."""

import json
import time
from collections.abc import Callable

import eventlet
from eventlet import GreenPool, Queue, event

SECONDS = 2.0


def per_second(operation: Callable[[], int]) -> float:
    """Repeat an operation, which says how many it was, for a while."""
    operation()
    started = time.perf_counter()
    count = 0
    while (seconds := time.perf_counter() - started) < SECONDS:
        count += operation()
    return count / seconds


def sleeps() -> int:
    """Let the others run, 100 times."""
    for _ in range(100):
        eventlet.sleep(0)
    return 100


def spawns() -> int:
    """Start green threads and wait for them."""
    for thread in [eventlet.spawn(int) for _ in range(100)]:
        thread.wait()
    return 100


def pools() -> int:
    """Map with a pool."""
    return len(list(GreenPool(10).imap(abs, range(100))))


def queues() -> int:
    """Hand values over."""
    queue = Queue(1)

    def produce() -> None:
        for number in range(100):
            queue.put(number)

    eventlet.spawn(produce)
    return sum(queue.get() is not None for _ in range(100))


def events() -> int:
    """Wait for events that others send."""
    for _ in range(50):
        done = event.Event()
        eventlet.spawn(done.send, 1)
        done.wait()
    return 50


def sockets() -> int:
    """Send bytes to and fro on a connection."""
    listener = eventlet.listen(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        while data := connection.recv(64):
            connection.sendall(data)

    eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    for _ in range(200):
        client.sendall(b"x" * 64)
        client.recv(64)
    client.close()
    listener.close()
    return 200


print(
    json.dumps(
        {
            operation.__name__: per_second(operation)
            for operation in (sleeps, spawns, pools, queues, events, sockets)
        }
    )
)
