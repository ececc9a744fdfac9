"""What the programs of soak.py share: chance, a time limit, and samples of what they use.

A program prints a sample now and then, one JSON object a line. soak.py reads them. It ends by
itself when its time is over, and says on stderr what went wrong.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import threading
import time
from pathlib import Path

from greenlet import stacks
from provenance import check_greenlet

SAMPLES_EVERY = 2.0  # seconds


class Soak:
    """The run of one program: how long, with which random numbers, and what it has done."""

    def __init__(self) -> None:
        check_greenlet()
        self.started = time.monotonic()
        self.end = self.started + float(sys.argv[1])
        self.chance = random.Random(int(sys.argv[2]))
        self.next_sample = self.started
        self.done = 0
        self.kills = 0
        self.collections = 0
        self.faults: list[str] = []

    def goes_on(self) -> bool:
        """Tell if there is time left. Prints a sample if one is due."""
        now = time.monotonic()
        if now >= self.next_sample:
            self.next_sample = now + SAMPLES_EVERY
            self.sample(now)
        return now < self.end

    def sample(self, now: float) -> None:
        """Print what the process uses now. Waiting greenlets are part of it, garbage is not."""
        gc.collect()
        regions = stacks.statistics()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        numbers = {
            "seconds": now - self.started,
            "resident KiB": int(resident.split()[1]),
            "regions in use": regions.in_use,
            "regions reserved": regions.reserved,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "objects": len(gc.get_objects()),
            "done": self.done,
            "kills": self.kills,
            "collections": self.collections,
        }
        print(json.dumps(numbers), flush=True)

    def collect(self) -> None:
        """Collect at random; sometimes give unused memory of stacks back."""
        self.collections += 1
        gc.collect(self.chance.randrange(3))
        if self.chance.randrange(10) == 0:
            stacks.trim()

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print("FAULT:", text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """End the program, with status 1 if something was wrong."""
        self.sample(time.monotonic())
        sys.exit(1 if self.faults or not self.done else 0)
