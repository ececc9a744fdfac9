"""A greenlet of a subclass that survives two deaths took a reference too many from its class.

Found by `make fuzz`, seed 185: a crash in a later program, when the class had been freed.
"""

import gc
import sys
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Plain(greenlet):
    pass


class Deleted(greenlet):
    def __del__(self) -> None:
        pass


def references_after_deaths(cls: Any, deaths: int) -> int:
    main, stored = getcurrent(), list[Any]()

    def body() -> None:
        for _ in range(deaths):
            try:
                main.switch()
            except GreenletExit:
                stored.append(getcurrent())

    gc.collect()  # free-threaded builds count in each thread until then
    before = sys.getrefcount(cls)
    made = cls(body)
    made.switch()
    del made
    for _ in range(deaths):
        stored.clear()
    gc.collect()
    return sys.getrefcount(cls) - before


if __name__ == "__main__":
    found = {cls.__name__: references_after_deaths(cls, 5) for cls in (Plain, Deleted)}
    print(found)
    sys.exit(any(found.values()))
