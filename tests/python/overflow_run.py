"""Runs one program of recursion_cases.py in a greenlet, and watches the memory beside its stack.

    overflow_run.py EXTENSION PROGRAM SIZE/LIMIT ...

EXTENSION is the compiled tests/extensions/overflow.c. SIZE is the size of the stacks (0: as large
as the thread's), LIMIT the recursion limit (0: the usual one). Each pair is a round: greenlets wait
in neighbouring regions, one of them runs the program twice, and then all others go on. A round
prints its pair before, and how the program ended after it. The program may end by a fault; then the
extension says whether it was in the guard.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet, stacks
from recursion_cases import ALL_PROGRAMS

PAGE = 4096
GUARD = 16 << 10


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("overflow", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Memory:
    """This process's memory, where a guard cannot be read."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/mem", os.O_RDONLY)

    def _is_readable(self, page: int) -> bool:
        try:
            return len(os.pread(self._file, 1, page)) == 1
        except OSError:
            return False

    def end(self, address: int, step: int) -> int:
        """Return the last readable page from here on, upwards (step 1) or downwards (-1)."""
        page = address // PAGE * PAGE
        while self._is_readable(page + step * GUARD):  # cannot step over a guard
            page += step * GUARD
        while self._is_readable(page + step * PAGE):
            page += step * PAGE
        return page

    def guard_below(self, address: int) -> tuple[int, int]:
        """Return where the guard of a stack begins and ends."""
        low = high = self.end(address, -1)
        while not self._is_readable(low - PAGE):
            low -= PAGE
        return low, high


def watch(overflow: Any, addresses: tuple[int, int, int]) -> None:
    """Watch the regions around the middle one of three stacks."""
    memory = Memory()
    below, own, above = (memory.guard_below(address) for address in addresses)
    assert own[1] - own[0] == GUARD, own
    assert memory.end(addresses[1], 1) + PAGE == above[0], "not neighbours"
    high = addresses[2] // PAGE * PAGE + PAGE
    # The pages that the neighbours run on, at least.
    # Regions are mapped in batches, and between two there may be other memory: a signal stack, say.
    is_direct = own[0] - below[0] == above[0] - own[0]
    low = below[0] if is_direct else own[0]
    assert overflow.watch(low, high, own[0], above[0], GUARD) >= 1 + is_direct


def run_round(overflow: Any, outcome: Callable[[], str], size: int, limit: int) -> str:
    stacks.set_default_size(size or None)
    sys.setrecursionlimit(limit or 1_000)
    main = getcurrent()

    def wait(number: int) -> int:
        result: Any = overflow.here()
        while (command := main.switch(result)) is not None:
            result = command()
        return number

    family = {greenlet(overflow.hold): number for number in range(13)}
    places = {
        g.switch(number, lambda number=number: wait(number)): g for g, number in family.items()
    }
    order = sorted(places)
    middle = len(order) // 2
    watch(overflow, (order[middle - 1], order[middle], order[middle + 1]))
    ends = []
    for _ in range(2):
        ends.append(places[order[middle]].switch(outcome))
        assert overflow.changed() == 0, f"pages changed: {overflow.changed()}"
    assert [g.switch(None) for g in family] == list(family.values())
    assert greenlet(lambda: sum(map(abs, range(10)))).switch() == 45
    return " ".join(dict.fromkeys(ends))


def main(extension: str, name: str, *rounds: str) -> None:
    overflow = load(extension)
    source = textwrap.dedent(ALL_PROGRAMS[name])
    scope: dict[str, Any] = {"overflow": overflow}
    exec(compile(source, "<program>", "exec"), scope)

    def outcome() -> str:
        try:
            scope["program"]()
        except (MemoryError, RuntimeError, ValueError) as error:
            # RecursionError is a RuntimeError. 3.11 wraps it so in __set_name__().
            return type(error).__name__
        return "ended"

    for each in rounds:
        size, limit = map(int, each.split("/"))
        print(f"{each}:", end=" ", flush=True)
        print(run_round(overflow, outcome, size, limit), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
