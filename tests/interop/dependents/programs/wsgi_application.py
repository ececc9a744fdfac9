"""A WSGI application for gunicorn's workers: it waits, computes, and says who it is."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import greenlet

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request: /who, /wait, /stream, /echo; anything else is a greeting."""
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _stream()
    if path == "/who":
        body = f"{greenlet.__version__} {os.getpid()}"
    elif path == "/wait":
        time.sleep(0.02)  # the worker has made this let others run
        body = "waited"
    elif path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
    else:
        body = "hello " * 20
    data = body.encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))]
    start_response("200 OK", headers)
    return [data]


def _stream() -> Iterator[bytes]:
    for number in range(20):
        time.sleep(0.001)
        yield b"%d\n" % number
