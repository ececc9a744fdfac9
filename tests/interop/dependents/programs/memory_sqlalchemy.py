"""What SQLAlchemy's asyncio engine keeps in memory: a thousand sessions at a time, with aiosqlite.

Most of them wait for one of a few connections, each in a greenlet of its own, deep in the pool.
Prints sessions per second, and megabytes of this process, as JSON.
"""

import asyncio
import gc
import json
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROWS = 500
SESSIONS = 1000
TIMES = 3
LAPS = 3.0  # seconds: memory is given back some time after it was used


class Base(DeclarativeBase):
    """Of the mapped classes."""


class Item(Base):
    """One row."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def megabytes() -> float:
    """Return what of this process is in memory."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


async def session(engine: AsyncEngine, number: int) -> None:
    """Look some rows up."""
    async with AsyncSession(engine) as own:
        for step in range(3):
            item = await own.get(Item, (number + step) % ROWS)
            assert item is not None
        await own.scalars(select(Item.name).limit(5))


async def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/items.db"
        engine = create_async_engine(url, pool_size=5, max_overflow=0, pool_timeout=600)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            rows = [{"id": number, "name": f"item {number}"} for number in range(ROWS)]
            await connection.execute(insert(Item), rows)
        await session(engine, 0)
        started = time.perf_counter()
        for _ in range(TIMES):
            await asyncio.gather(*(session(engine, number) for number in range(SESSIONS)))
        seconds = time.perf_counter() - started
        gc.collect()
        ends = time.monotonic() + LAPS
        while time.monotonic() < ends:  # a server is never quite at rest
            await session(engine, 0)
            await asyncio.sleep(0.1)
        at_end = megabytes()
        await engine.dispose()
    rates = {"sessions": SESSIONS * TIMES / seconds, "after a thousand sessions, MB": at_end}
    print(json.dumps(rates))


asyncio.run(main())
