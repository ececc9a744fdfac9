"""Transfers on SQLAlchemy's asyncio engine and aiosqlite, cancelled at random.

python soak_sqlalchemy.py SECONDS SEED
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import sqlalchemy
from soaking import Soak
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

ACCOUNTS = 100
OPENING_BALANCE = 100
TASKS = 20
PAUSE = 0.5  # seconds that a teller sleeps between two transactions, on average
DISPOSALS = 1000  # one in so many rounds gets new connections

metadata = sqlalchemy.MetaData()
account = sqlalchemy.Table(
    "account",
    metadata,
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("balance", sqlalchemy.Integer),
)


class Bank:
    """The engine, and the tellers who use it."""

    def __init__(self, soak: Soak, engine: AsyncEngine) -> None:
        self.soak = soak
        self.engine = engine
        self.writing = asyncio.Lock()  # SQLite has one writer at a time

    async def open(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            rows = [{"id": number, "balance": OPENING_BALANCE} for number in range(ACCOUNTS)]
            await connection.execute(insert(account), rows)

    async def teller(self) -> None:
        while True:
            if self.soak.chance.randrange(4):
                await self.transfer()
            else:
                await self.audit()
            self.soak.done += 1
            await asyncio.sleep(self.soak.chance.uniform(0, 2 * PAUSE))

    async def transfer(self) -> None:
        source, target = self.soak.chance.sample(range(ACCOUNTS), 2)
        async with self.writing, self.engine.begin() as connection:
            await self.add(connection, source, -1)
            await asyncio.sleep(self.soak.chance.uniform(0, 0.01))  # to be cancelled here
            await self.add(connection, target, 1)

    async def add(self, connection: AsyncConnection, number: int, amount: int) -> None:
        changed = account.c.balance + amount
        await connection.execute(
            update(account).where(account.c.id == number).values(balance=changed)
        )

    async def audit(self) -> None:
        async with self.engine.connect() as connection:
            total = await connection.scalar(select(func.sum(account.c.balance)))
        if total != ACCOUNTS * OPENING_BALANCE:
            self.soak.fault(f"{total} is in all accounts")

    async def run(self) -> None:
        chance = self.soak.chance
        tellers: list[asyncio.Task[None]] = []
        while self.soak.goes_on():
            for ended in [task for task in tellers if task.done()]:
                tellers.remove(ended)
                if not ended.cancelled():
                    self.soak.fault(f"a teller has failed: {ended.exception()!r}")
            while len(tellers) < TASKS:
                tellers.append(asyncio.create_task(self.teller()))
            await asyncio.sleep(0.05)
            if chance.randrange(10) == 0:
                chance.choice(tellers).cancel()
                self.soak.kills += 1
            if chance.randrange(40) == 0:
                self.soak.collect()
            if chance.randrange(DISPOSALS) == 0:
                await self.engine.dispose()  # each connection has a thread
        for task in tellers:
            task.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)
        await self.audit()


async def run(soak: Soak, file: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=8)
    bank = Bank(soak, engine)
    await bank.open()
    await bank.run()
    await engine.dispose()


def main() -> None:
    soak = Soak()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(soak, Path(folder) / "bank.sqlite"))
    soak.finish()


if __name__ == "__main__":
    main()
