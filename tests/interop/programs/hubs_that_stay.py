"""Event loops that nothing ends: in threads that end, in forked children, at the program's end.

The argument says whose: gevent or eventlet. Their hubs catch what is thrown into them while they
run a callback, GreenletExit too, and go on to wait for events.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from typing import Any

from provenance import check_greenlet

LIBRARY = sys.argv[1]
library: Any = importlib.import_module(LIBRARY)


def tick() -> None:
    """Wait again and again."""
    while True:
        library.sleep(0.01)


def use_a_hub() -> None:
    """Leave a hub behind, and greenlets that wait in it."""
    for _ in range(3):
        library.spawn(tick)
    library.sleep(0.05)


def check_threads() -> None:
    """Threads end although their hubs do not."""
    threads = [threading.Thread(target=use_a_hub, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread did not end"
    gc.collect()


def check_fork() -> None:
    """So do children that are forked from a thread with a hub."""
    child = os.fork()
    if child == 0:
        use_a_hub()
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def main() -> None:
    """Check, and leave a hub of the main thread's to the end of the program."""
    check_greenlet()
    check_threads()
    print("threads end", flush=True)
    if LIBRARY == "eventlet":
        check_fork()
        print("children end", flush=True)
    use_a_hub()
    print("the program ends", flush=True)


main()
