"""A fixed load on SQLAlchemy's asyncio engine with aiosqlite: operations per second, as JSON."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

ROWS = 2000
SECONDS = 2.0


class Base(DeclarativeBase):
    """Of the mapped classes."""


class Item(Base):
    """One row."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def per_second(operation: Callable[[int], Awaitable[object]]) -> float:
    """Repeat an operation for a while."""
    await operation(0)
    started = time.perf_counter()
    count = 0
    while (seconds := time.perf_counter() - started) < SECONDS:
        count += 1
        await operation(count)
    return count / seconds


async def measure(engine: AsyncEngine) -> dict[str, float]:
    """Fill a table, and look things up in it."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        rows = [{"id": number, "name": f"item {number}"} for number in range(ROWS)]
        await connection.execute(insert(Item), rows)

    # The driver waits in a thread for each statement; run_sync() switches and does not.
    async with engine.connect() as connection:

        async def run_sync(_: int) -> None:
            await connection.run_sync(len_of_dialect)

        def len_of_dialect(sync: object) -> int:
            return len(str(type(sync)))

        async def look_up(number: int) -> None:
            await connection.execute(select(Item.name).where(Item.id == number % ROWS))

        async def scan(_: int) -> None:
            (await connection.execute(select(Item.id, Item.name).limit(500))).all()

        results = {
            "run_sync": await per_second(run_sync),
            "select one row": await per_second(look_up),
            "select 500 rows": await per_second(scan),
        }

    async with AsyncSession(engine) as session:

        async def get(number: int) -> None:
            session.expunge_all()
            item = await session.get(Item, number % ROWS)
            assert item is not None

        async def change(number: int) -> None:
            item = await session.get(Item, number % ROWS)
            assert item is not None
            item.name = f"changed {number}"
            await session.flush()

        results["ORM get"] = await per_second(get)
        results["ORM get, change, flush"] = await per_second(change)
        await session.rollback()
    return results


async def main() -> None:
    """Measure, and print."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    results = await measure(engine)
    await engine.dispose()
    print(json.dumps(results))


asyncio.run(main())
