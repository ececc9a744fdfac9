"""A fixed load on greenback: awaits from synchronous functions per second, as JSON."""

import asyncio
import json
import time
from collections.abc import Callable

import greenback

SECONDS = 2.0


async def nothing() -> None:
    """Be awaited without waiting."""


def nested(depth: int) -> None:
    """Await from `depth` calls deep."""
    if depth:
        nested(depth - 1)
    else:
        greenback.await_(asyncio.sleep(0))


async def main() -> None:
    """Measure, and print."""
    await greenback.ensure_portal()
    results = {}
    operations: dict[str, Callable[[], object]] = {
        "await_ of nothing": lambda: greenback.await_(nothing()),
        "await_ that waits": lambda: nested(0),
        "await_ from 50 calls deep": lambda: nested(50),
    }
    for name, operation in operations.items():
        operation()
        started = time.perf_counter()
        count = 0
        while (seconds := time.perf_counter() - started) < SECONDS:
            operation()
            count += 1
        results[name] = count / seconds
    print(json.dumps(results))


asyncio.run(main())
