"""Free-threaded: a child of os.fork() waits for ever for the lock of a dict that others use.

A mutex that others have waited for longer than a millisecond is handed over: it stays locked, and
belongs to a thread that sleeps. If the world stops for a fork before that thread wakes up, the
child has the dict locked, and nobody who unlocks it. Seen with 3.14.7 and 3.15.0rc2: one child in a
hundred, where other processes need the processors, too.
"""

import os
import signal
import threading
import time

SECONDS = 15

shared = {}
end = time.monotonic() + SECONDS


def use():
    while time.monotonic() < end:
        for _ in range(1000):
            shared.setdefault("a", 1)
            shared["b"] = 2


for _ in range(3):
    threading.Thread(target=use).start()
forks = 0
while time.monotonic() < end:
    child = os.fork()
    if child == 0:
        signal.alarm(3)
        shared["b"] = 3
        os._exit(0)
    forks += 1
    if status := os.waitpid(child, 0)[1]:
        print(f"child {forks} has ended with {os.waitstatus_to_exitcode(status)}", flush=True)
