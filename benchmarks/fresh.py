#!/usr/bin/env python3
"""The first use in a process: prints the seconds of `import greenlet`, and of a first start.

The modules of the standard library that either implementation may use are loaded before, as nearly
every program has them anyway.
"""

import contextvars  # noqa: F401
import gc
import json
from time import perf_counter

if __name__ == "__main__":
    gc.disable()
    begin = perf_counter()
    import greenlet

    imported = perf_counter()
    greenlet.greenlet(int).switch()
    switched = perf_counter()
    print(json.dumps({"import": imported - begin, "first_switch": switched - imported}))
