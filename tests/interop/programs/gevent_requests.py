"""A monkey-patched HTTP server and its clients on gevent: 1,000 requests, each reply checked.

gevent_services.py does this and much more. Under Wine it cannot run on gevent's loop of Windows
(libuv), and this can: its requests have no bodies.
"""

# Before anything imports the modules that gevent patches.
from gevent import monkey

monkey.patch_all()

import threading  # noqa: E402
import urllib.request  # noqa: E402
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: E402

import gevent  # noqa: E402
import gevent.pool  # noqa: E402
from provenance import check_greenlet  # noqa: E402

REQUESTS = 1_000
CLIENTS = 20


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        reply = self.path.encode() * 100
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None: ...


def main() -> None:
    check_greenlet()
    print("gevent", gevent.__version__, type(gevent.get_hub().loop))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def request(number: int) -> int:
        url = f"http://127.0.0.1:{server.server_port}/{number}"
        with urllib.request.urlopen(url, timeout=60) as response:
            assert response.read() == f"/{number}".encode() * 100
        return number

    with gevent.Timeout(90, AssertionError("it hangs")):
        numbers = gevent.pool.Pool(CLIENTS).map(request, range(REQUESTS))
    assert numbers == list(range(REQUESTS))
    print(f"{REQUESTS} requests")


if __name__ == "__main__":
    main()
