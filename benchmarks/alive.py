#!/usr/bin/env python3
"""The time of a switch by the number of greenlets that live: `alive.py COUNT` prints seconds.

All of them are suspended, and the main greenlet resumes one after the other, in the order in which
they were made, round after round. The more there are, the less of them is in the caches, and the
less of their stacks' addresses in the TLB.
"""

import gc
import os
import sys
from time import perf_counter

from greenlet import getcurrent, greenlet

SWITCHES = 2_000_000  # of a measurement, at least; and at least this many rounds:
ROUNDS = 3


def measure(count: int) -> float:
    """Seconds for each switch, there or back; the best round of many, as others only disturb."""
    gc.disable()  # what a collection costs, collect.py measures
    main = getcurrent()

    def wait() -> None:
        switch = main.switch
        while True:
            switch()

    greenlets = [greenlet(wait) for _ in range(count)]
    switches = [each.switch for each in greenlets]
    for switch in switches:
        switch()
    repeats = max(1, 2_000 // count)  # so that a round is longer than a look at the clock
    best = float("inf")
    for _ in range(max(ROUNDS, SWITCHES // (2 * count * repeats))):
        begin = perf_counter()
        for _ in range(repeats):
            for switch in switches:
                switch()
        best = min(best, perf_counter() - begin)
    return best / (2 * count * repeats)


if __name__ == "__main__":
    print(measure(int(sys.argv[1])), flush=True)
    os._exit(0)  # not to wait until a million greenlets are killed, which is not measured here
