"""gevent at work: a monkey-patched HTTP server and its clients, and what gevent is made of.

gevent's Greenlet, its hub, its semaphores and its locals are compiled Cython classes. Some are
subclasses of greenlet's type: they append their fields behind the object layout of the greenlet
they were compiled with. So this runs only if our layout is the same.
"""

import os
import sys

# Under Wine gevent's loop of Windows (libuv) hangs when requests have bodies, with the published
# greenlet, too. gevent_requests.py runs on it.
if sys.platform == "win32":
    os.environ.setdefault("GEVENT_LOOP", "libev-cext")

# Before anything imports the modules that gevent patches.
from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import http.client  # noqa: E402
import json  # noqa: E402
import queue  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextvars import ContextVar  # noqa: E402
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import gevent.local  # noqa: E402
import gevent.lock  # noqa: E402
import gevent.pool  # noqa: E402
import gevent.pywsgi  # noqa: E402
import gevent.queue  # noqa: E402
import gevent.threadpool  # noqa: E402
import gevent.util  # noqa: E402
import greenlet  # noqa: E402
from provenance import check_greenlet  # noqa: E402

REQUESTS = 1_000
CLIENTS = 50


def reply_to(path: str, body: bytes) -> bytes:
    return json.dumps({"path": path, "body": body.decode(), "length": len(body)}).encode()


def exchange_requests(port: int) -> None:
    """1,000 requests from 50 greenlets at a time, with bodies of all sizes, each reply checked."""

    def request(number: int) -> int:
        body = b"x" * (number * 97 % 20_000)
        url = f"http://127.0.0.1:{port}/number/{number}"
        with urllib.request.urlopen(url, data=body, timeout=60) as response:
            assert response.status == 200
            assert response.read() == reply_to(f"/number/{number}", body)
        return number

    pool = gevent.pool.Pool(CLIENTS)
    assert sorted(pool.imap_unordered(request, range(REQUESTS))) == list(range(REQUESTS))


def http_server_of_the_standard_library() -> None:
    """The threads of the server are greenlets here."""
    threads = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            threads.add(greenlet.getcurrent())
            body = self.rfile.read(int(self.headers["Content-Length"]))
            gevent.sleep(0.001)
            reply = reply_to(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        exchange_requests(server.server_address[1])
        server.shutdown()
        thread.join()
    assert len(threads) == REQUESTS
    assert greenlet.getcurrent() not in threads


def http_server_of_gevent() -> None:
    """gevent.pywsgi, and a client that keeps its connection."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        reply = reply_to(environ["PATH_INFO"], environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", str(len(reply)))])
        return [reply]

    server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    exchange_requests(server.server_port)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    for number in range(20):
        connection.request("POST", f"/{number}", body=b"same connection")
        assert connection.getresponse().read() == reply_to(f"/{number}", b"same connection")
    connection.close()
    server.stop()


def queues() -> None:
    """Producers and consumers with gevent's queues and the standard library's patched queue."""
    for make in (gevent.queue.Queue, gevent.queue.JoinableQueue, queue.Queue):
        items: Any = make(maxsize=7)
        received: list[int] = []

        def produce(first: int, items: Any = items) -> None:
            for number in range(first, first + 200):
                items.put(number)

        def consume(items: Any = items, received: list[int] = received) -> None:
            while True:
                received.append(items.get())
                if hasattr(items, "task_done"):
                    items.task_done()

        consumers = [gevent.spawn(consume) for _ in range(3)]
        gevent.joinall([gevent.spawn(produce, n * 200) for n in range(5)], raise_error=True)
        if hasattr(items, "join"):
            items.join()
        else:
            while not items.empty():
                gevent.sleep(0)
        gevent.killall(consumers)
        assert all(consumer.dead for consumer in consumers)
        assert sorted(received) == list(range(1000))

    priority = gevent.queue.PriorityQueue()
    for number in (3, 1, 2):
        priority.put(number)
    assert [priority.get() for _ in range(3)] == [1, 2, 3]
    empty: Any = gevent.queue.Queue()
    try:
        empty.get(timeout=0.02)
    except gevent.queue.Empty:
        pass
    else:
        raise AssertionError("got something from an empty queue")


def pools() -> None:
    """Pools bound how many run at once; results and exceptions come back; threads do work."""
    running = highest = 0

    def work(number: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        gevent.sleep(0.001)
        running -= 1
        if number == 77:
            raise ValueError("on purpose")
        return number * number

    pool = gevent.pool.Pool(10)
    greenlets = [pool.spawn(work, number) for number in range(100)]
    # gevent reports the exception of a greenlet that fails on stderr.
    pool.join(raise_error=False)
    assert highest == 10
    assert [each.value for each in greenlets if each.successful()] == [
        number * number for number in range(100) if number != 77
    ]
    assert isinstance(greenlets[77].exception, ValueError)
    try:
        greenlets[77].get()
    except ValueError as error:
        assert str(error) == "on purpose"

    # Real threads, each with a main greenlet of its own, that report to the hub of this thread.
    threads = gevent.threadpool.ThreadPool(4)
    identities = set(threads.map(identity_after_a_while, range(16)))
    assert 1 < len(identities) <= 4
    assert threading_identity() not in identities
    threads.join()
    threads.kill()


def identity_after_a_while(_: object) -> int:
    gevent.sleep(0.02)
    return threading_identity()


def threading_identity() -> int:
    """The ident of the real thread: the patched get_ident() differs between greenlets."""
    identity: int = monkey.get_original("threading", "get_ident")()
    return identity


def timeouts() -> None:
    """Timeouts are raised where the greenlet waits, end the right block, and can be cancelled."""
    begin = time.monotonic()
    try:
        with gevent.Timeout(0.05):
            gevent.sleep(30)
    except gevent.Timeout:
        pass
    else:
        raise AssertionError("slept for 30 seconds")
    with gevent.Timeout(30), gevent.Timeout(0.02, False) as inner:
        gevent.sleep(30)
    assert inner is not None
    assert gevent.with_timeout(0.02, gevent.sleep, 30, timeout_value="late") == "late"
    with gevent.Timeout(0.02):
        pass
    gevent.sleep(0.05)

    a, b = socket.socketpair()
    with a, b:
        a.settimeout(0.02)
        try:
            a.recv(1)
        except TimeoutError:
            pass
        else:
            raise AssertionError("received from nobody")
    assert time.monotonic() - begin < 20


def deaths() -> None:
    """kill() raises GreenletExit where the greenlet waits; links report every end."""
    ends: list[str] = []

    def wait(name: str) -> None:
        try:
            gevent.sleep(30)
        except gevent.GreenletExit:
            ends.append(f"{name} was told")
            raise
        finally:
            ends.append(f"{name} cleaned up")

    assert gevent.GreenletExit is greenlet.GreenletExit
    started = gevent.spawn(wait, "started")
    started.link(lambda source: ends.append(f"linked {type(source.value).__name__}"))
    gevent.sleep(0)
    never = gevent.spawn(wait, "never started")
    assert started
    never.kill()
    started.kill()
    gevent.sleep(0)
    assert ends == ["started was told", "started cleaned up", "linked GreenletExit"], ends
    assert started.dead
    assert isinstance(started.value, gevent.GreenletExit)
    assert isinstance(never, greenlet.greenlet)

    class Counting(gevent.Greenlet):  # type: ignore[misc]
        """A Python subclass of a Cython subclass of our type."""

        def __init__(self, until: int) -> None:
            super().__init__()
            self.until = until

        def _run(self) -> int:
            for _ in range(self.until):
                gevent.sleep(0)
            return self.until

    counting = [Counting(number) for number in range(50)]
    for each in counting:
        each.start()
    gevent.joinall(counting)
    assert [each.get() for each in counting] == list(range(50))


def synchronization() -> None:
    """Events, semaphores, locks across real threads, locals and context variables."""
    event = gevent.event.Event()
    result = gevent.event.AsyncResult()
    waiting = [gevent.spawn(event.wait) for _ in range(20)] + [gevent.spawn(result.get)]
    gevent.sleep(0)
    event.set()
    result.set(True)
    gevent.joinall(waiting, timeout=10)
    assert all(each.value is True for each in waiting)

    lock = gevent.lock.BoundedSemaphore(1)
    inside: list[int] = []

    def enter(number: int) -> None:
        with lock:
            assert not inside
            inside.append(number)
            gevent.sleep(0)
            inside.remove(number)

    gevent.joinall([gevent.spawn(enter, number) for number in range(50)], raise_error=True)

    # A hub with greenlets of its own in each of several real threads.
    def elsewhere(first: int) -> int:
        def value(number: int) -> int:
            gevent.sleep(0.001)
            return number

        greenlets = [gevent.spawn(value, first + number) for number in range(50)]
        gevent.joinall(greenlets, raise_error=True)
        return sum(each.value for each in greenlets)

    threads = gevent.threadpool.ThreadPool(3)
    sums = [threads.spawn(elsewhere, first) for first in (0, 100, 200)]
    assert [each.get() for each in sums] == [1225, 6225, 11225]
    threads.kill()

    local = gevent.local.local()
    variable: ContextVar[int] = ContextVar("variable")

    def own(number: int) -> None:
        local.value = number
        variable.set(number)
        for _ in range(5):
            gevent.sleep(0)
            assert local.value == number
            assert variable.get() == number

    gevent.joinall([gevent.spawn(own, number) for number in range(50)], raise_error=True)
    assert not hasattr(local, "value")


def processes() -> None:
    """Child processes whose output greenlets read; a fork; a signal."""

    def child(number: int) -> str:
        code = f"import sys, time; time.sleep(0.2); print(sys.stdin.read() * {number})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input="ab", capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    assert gevent.pool.Pool(8).map(child, range(1, 9)) == ["ab" * n for n in range(1, 9)]
    try:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.3)
    except subprocess.TimeoutExpired:
        pass
    else:
        raise AssertionError("the child was not stopped")

    suspended = gevent.spawn(gevent.sleep, 30)
    gevent.sleep(0)
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        # The greenlets of the forking thread go on in the child.
        answer = b"child" if gevent.spawn(lambda: gevent.sleep(0.01) or 7).get() == 7 else b"?"
        suspended.kill()
        os.write(writing, answer + (b" dead" if suspended.dead else b" alive"))
        os._exit(0)
    # waitpid() lets the loop run. os.read() before it would block the thread.
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(reading, 100) == b"child dead"
    os.close(writing)
    os.close(reading)
    assert not suspended.dead
    suspended.kill()

    received = gevent.event.Event()
    handler = gevent.signal_handler(signal.SIGUSR1, received.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert received.wait(10)
    handler.cancel()


def inspection() -> None:
    """gevent finds all greenlets through the collector, and walks their frames and their tree."""

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        gevent.sleep(30)

    sleeping = [gevent.spawn(recurse, depth) for depth in range(4)]
    gevent.sleep(0)
    for _ in range(3):
        gc.collect()
    report = "\n".join(gevent.util.format_run_info())
    found = report.count("in recurse")
    assert found == 1 + 2 + 3 + 4, found
    tree = str(gevent.util.GreenletTree.current_tree())
    assert all(f"recurse({depth})" in tree for depth in range(4)), tree
    gevent.killall(sleeping)

    switches: list[str] = []
    previous = greenlet.settrace(lambda kind, _: switches.append(kind))
    gevent.sleep(0)
    greenlet.settrace(previous)
    assert switches.count("switch") >= 2


def main() -> None:
    check_greenlet()
    print("gevent", gevent.__version__)
    for step in (
        http_server_of_the_standard_library,
        http_server_of_gevent,
        queues,
        pools,
        timeouts,
        deaths,
        synchronization,
        processes,
        inspection,
    ):
        # Windows has neither forks nor such signals. Under Wine gevent's children hang, with the
        # published greenlet, too.
        if sys.platform == "win32" and step is processes:
            continue
        begin = time.perf_counter()
        with gevent.Timeout(90, AssertionError(f"{step.__name__} hangs")):
            step()
        print(f"{step.__name__}: {time.perf_counter() - begin:.2f} s", flush=True)


if __name__ == "__main__":
    main()
