"""Threads that end while they have a hub of gevent's or eventlet's, with all that keeps it waiting.

The arguments: gevent or eventlet, the name of a scenario, how many threads.
Each thread ends within seconds, and the `finally` blocks of its greenlets run.
"""

from __future__ import annotations

import gc
import importlib
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from provenance import check_greenlet

warnings.simplefilter("ignore")  # eventlet's about itself

LIBRARY, NAME, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
library: Any = importlib.import_module(LIBRARY)

CHILDREN = 5
ended: list[int] = []  # a number for each finally block that ran to its end
kept: list[object] = []  # until the thread has ended
scenarios: dict[str, tuple[Callable[[], None], int]] = {}


def scenario(
    libraries: str, children: int = 0
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Name a scenario, with the finally blocks that have to run in each thread."""

    def add(function: Callable[[], None]) -> Callable[[], None]:
        if LIBRARY in libraries.split():
            scenarios[function.__name__] = (function, children)
        return function

    return add


def gevent_loop() -> Any:
    """The event loop of this thread's hub."""
    return library.get_hub().loop


@scenario("gevent eventlet")
def a_hub_that_was_used() -> None:
    library.sleep(0.001)


@scenario("gevent eventlet")
def a_timer() -> None:
    if LIBRARY == "gevent":
        gevent_loop().timer(1000).start(lambda: None)
    else:
        importlib.import_module("eventlet.hubs").get_hub().schedule_call_global(1000, print)
    library.sleep(0.001)


@scenario("gevent eventlet")
def a_timeout() -> None:
    timeout = library.Timeout(1000)
    if LIBRARY == "gevent":
        timeout.start()
    library.sleep(0.001)


@scenario("gevent eventlet")
def a_socket() -> None:
    one, other = socket.socketpair()
    kept.extend((one, other))
    if LIBRARY == "gevent":
        watcher = gevent_loop().io(one.fileno(), 1)
        watcher.start(lambda: None)
        kept.append(watcher)
    else:
        hub = importlib.import_module("eventlet.hubs").get_hub()
        hub.add("read", one.fileno(), print, print, print)
    library.sleep(0.001)


@scenario("gevent")
def pending_callbacks() -> None:
    library.sleep(0)
    for _ in range(5):
        gevent_loop().run_callback(lambda: None)


@scenario("gevent")
def a_thread_pool() -> None:
    assert library.get_hub().threadpool.apply(lambda: 7) == 7


def wait() -> None:
    """A greenlet that waits for long."""
    try:
        library.sleep(1000)
    finally:
        ended.append(1)


def wait_and_take_time() -> None:
    """One that waits again when it ends."""
    try:
        library.sleep(1000)
    finally:
        library.sleep(0.001)
        library.sleep(0)
        ended.append(1)


@scenario("gevent eventlet", children=CHILDREN)
def children() -> None:
    kept.extend(library.spawn(wait) for _ in range(CHILDREN))
    library.sleep(0.001)


@scenario("gevent eventlet", children=CHILDREN)
def children_that_nobody_refers_to() -> None:
    for _ in range(CHILDREN):
        library.spawn(wait)
    library.sleep(0.001)


@scenario("gevent eventlet", children=CHILDREN)
def children_whose_finally_blocks_sleep() -> None:
    kept.extend(library.spawn(wait_and_take_time) for _ in range(CHILDREN))
    library.sleep(0.001)


def wait_for_an_event(*then: Callable[[], object]) -> None:
    """A greenlet that waits for long, without a timer of the loop."""
    try:
        importlib.import_module("gevent.event").Event().wait()
    finally:
        for function in then:
            function()
        ended.append(1)


def destroy_the_hub(*then: Callable[[], object]) -> None:
    """Leave greenlets behind whose hub is gone."""
    kept.extend(library.spawn(wait_for_an_event, *then) for _ in range(CHILDREN))
    library.sleep(0.001)
    library.get_hub().destroy(destroy_loop=True)


@scenario("gevent", children=CHILDREN)
def a_destroyed_hub() -> None:
    destroy_the_hub()


@scenario("gevent", children=CHILDREN)
def a_destroyed_hub_and_finally_blocks_that_sleep() -> None:
    destroy_the_hub(lambda: library.sleep(0.001))


def serve(*connection: object) -> None:
    """Serve a connection for long."""
    wait()


@scenario("gevent eventlet", children=1)
def a_server() -> None:
    if LIBRARY == "gevent":
        server = importlib.import_module("gevent.server").StreamServer(("127.0.0.1", 0), serve)
        server.start()
        address = server.address
        connect = importlib.import_module("gevent.socket").create_connection
    else:
        server = library.listen(("127.0.0.1", 0))
        address = server.getsockname()
        kept.append(library.spawn(library.serve, server, serve))
        connect = library.connect
    kept.extend((server, connect(address)))
    library.sleep(0.01)


def main() -> None:
    """Run the scenario in one thread after the other."""
    check_greenlet()
    function, expected = scenarios[NAME]
    for number in range(1, COUNT + 1):
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), f"thread {number} did not end"
        kept.clear()
        if number % 10 == 0:
            gc.collect()
    assert len(ended) == expected * COUNT, (len(ended), expected)
    print("all threads have ended")


main()
