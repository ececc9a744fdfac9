"""A cache of functools.lru_cache() is damaged by threads whose keys compare in Python.

The comparison lets another thread run, or raises, in the middle of a change of the cache's list.
3.14 and 3.15 end by SIGSEGV within seconds, 3.13 hangs or ends so.
"""

import functools
import gc
import random
import threading
import time

STOP = time.monotonic() + 10


def act():
    chance = random.randrange(12)
    if chance == 0:
        time.sleep(0)
    elif chance == 1:
        raise ArithmeticError


class Key:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        act()
        return self.number == other.number

    def __hash__(self):
        act()
        return self.number % 3


@functools.lru_cache(4)
def cached(key):
    act()
    return key.number


def work():
    while time.monotonic() < STOP:
        try:
            cached(Key(random.randrange(6)))
        except (ArithmeticError, KeyError):
            pass
        if random.randrange(500) == 0:
            gc.collect()


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("nothing happened")
