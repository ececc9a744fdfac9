"""set.update() uses a freed key if a comparison lets another thread change the other set.

3.12.1 ends by SIGSEGV within seconds, 3.11.7 at times; 3.13.15 was not seen to.
"""

import random
import sys
import threading
import time
from functools import partial

STOP = time.monotonic() + 8


class Key:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        if random.randrange(6) == 0:
            time.sleep(0)
        return self.number == other.number

    def __hash__(self):
        return self.number % 3


one, other = set(), set()


def work():
    while time.monotonic() < STOP:
        key = Key(random.randrange(8))
        change = random.choice(
            (
                partial(one.update, other),
                partial(other.add, key),
                partial(other.discard, key),
                other.clear,
                partial(one.add, key),
                partial(one.discard, key),
            )
        )
        try:
            change()
        except (RuntimeError, KeyError):
            pass


sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("nothing happened")
