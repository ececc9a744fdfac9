"""A bank on SQLAlchemy's asyncio engine and aiosqlite: ORM, transactions at once, rollbacks.

SQLAlchemy's core is synchronous. Its asyncio engine runs it in greenlets, and each query switches
out of one, to the event loop, and back in with the rows. The database is a file; in the end
Python's own sqlite3 reads it, and every row is compared with what the program knows.

    python sqlalchemy_bank.py [FILE]
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import sqlite3
import sys
import tempfile
import traceback
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import sqlalchemy
from provenance import check_greenlet
from sqlalchemy import CheckConstraint, ForeignKey, event, insert, select, update
from sqlalchemy.exc import IntegrityError, MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import (
    AsyncAttrs,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.util import await_only

ACCOUNTS = 10_000
BRANCHES = 10
OPENING_BALANCE = 100
TELLERS = 40
TRANSFERS_EACH = 10

Sessions: TypeAlias = async_sessionmaker[AsyncSession]


# mypy runs where SQLAlchemy is not installed.
class Base(AsyncAttrs, DeclarativeBase):  # type: ignore[misc]
    pass


class Branch(Base):
    __tablename__ = "branch"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    accounts: Mapped[list[Account]] = relationship(back_populates="branch")


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)
    balance: Mapped[int] = mapped_column(CheckConstraint("balance >= 0"))
    branch_id: Mapped[int] = mapped_column(ForeignKey("branch.id"))
    branch: Mapped[Branch] = relationship(back_populates="accounts")


def engine_for(path: Path) -> AsyncEngine:
    """An engine whose transactions take the write lock at their beginning, and wait for it.

    Else two that have both read can wait for each other, and SQLite fails one of them.
    """
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 60}, pool_size=10
    )

    # Both functions are synchronous and run inside SQLAlchemy's greenlets.
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection, record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None  # no BEGIN of the driver's own
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")  # type: ignore[untyped-decorator]
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


async def fill(engine: AsyncEngine, sessions: Sessions) -> dict[str, int]:
    """Create the schema and insert: half as ORM objects, half as plain rows in one statement."""
    async with engine.begin() as connection:
        # create_all() is synchronous, and queries which tables there are.
        await connection.run_sync(Base.metadata.create_all)

    owners = [f"owner {number}" for number in range(ACCOUNTS)]
    half = ACCOUNTS // 2
    async with sessions.begin() as session:
        branches = [Branch(name=f"branch {number}") for number in range(BRANCHES)]
        session.add_all(branches)
        for number, owner in enumerate(owners[:half]):
            branch = branches[number % BRANCHES]
            session.add(Account(owner=owner, balance=OPENING_BALANCE, branch=branch))
    async with sessions.begin() as session:
        ids = (await session.scalars(select(Branch.id).order_by(Branch.id))).all()
        await session.execute(
            insert(Account),
            [
                {
                    "owner": owner,
                    "balance": OPENING_BALANCE,
                    "branch_id": ids[number % BRANCHES],
                }
                for number, owner in enumerate(owners[half:], half)
            ],
        )
    return dict.fromkeys(owners, OPENING_BALANCE)


async def transfer(sessions: Sessions, source: str, target: str, amount: int) -> bool:
    """Move an amount in one transaction; False, and all undone, if the source has too little."""
    try:
        async with sessions.begin() as session:
            # The target first: if the source fails, this has to be undone.
            for owner, change in ((target, amount), (source, -amount)):
                await session.execute(
                    update(Account)
                    .where(Account.owner == owner)
                    .values(balance=Account.balance + change)
                )
    except IntegrityError as error:
        assert "CHECK constraint failed" in str(error)
        return False
    return True


async def transfers_at_once(sessions: Sessions, expected: dict[str, int]) -> None:
    """Many tellers at once; the outcome is applied to `expected` in the order of the commits."""
    # Few owners, so that they meet, and run out of money.
    few = list(expected)[:20]
    outcomes: list[bool] = []

    async def teller(number: int) -> None:
        dice = random.Random(number)
        for _ in range(TRANSFERS_EACH):
            source, target = dice.sample(few, 2)
            amount = dice.randint(1, 60)
            done = await transfer(sessions, source, target, amount)
            outcomes.append(done)
            if done:
                expected[source] -= amount
                expected[target] += amount

    await asyncio.gather(*map(teller, range(TELLERS)))
    assert len(outcomes) == TELLERS * TRANSFERS_EACH
    print(f"{outcomes.count(True)} transfers, {outcomes.count(False)} rolled back")
    assert 0 < outcomes.count(False) < outcomes.count(True)


async def rollbacks(sessions: Sessions, expected: dict[str, int]) -> None:
    """By an exception of the program's own, by hand, to a savepoint, and by cancellation."""

    async def change(session: AsyncSession, owner: str, balance: int) -> None:
        account = (await session.scalars(select(Account).where(Account.owner == owner))).one()
        account.balance = balance
        await session.flush()

    class OnPurpose(Exception):
        pass

    try:
        async with sessions.begin() as session:
            await change(session, "owner 100", 1)
            raise OnPurpose
    except OnPurpose:
        pass

    async with sessions() as session:
        await change(session, "owner 101", 1)
        await session.rollback()
        await change(session, "owner 102", 102)
        await session.commit()
        expected["owner 102"] = 102

    async with sessions.begin() as session:
        await change(session, "owner 103", 103)
        expected["owner 103"] = 103
        try:
            async with session.begin_nested():
                await change(session, "owner 104", 1)
                branch_id = await session.scalar(select(Branch.id).limit(1))
                session.add(Account(owner="owner 0", balance=1, branch_id=branch_id))
                await session.flush()
        except IntegrityError as error:
            assert "UNIQUE constraint failed" in str(error)
            # Raised below SQLAlchemy's greenlet and caught above it: one traceback through both.
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[0] == "rollbacks", names
            assert "greenlet_spawn" in names, names
        else:
            raise AssertionError("the owner is there twice")

    changed = asyncio.Event()

    async def endless() -> None:
        async with sessions.begin() as session:
            await change(session, "owner 105", 1)

            def wait(session: Session) -> None:
                changed.set()
                await_only(asyncio.sleep(600))

            # The cancellation is thrown into this synchronous code.
            await session.run_sync(wait)

    task = asyncio.create_task(endless())
    await changed.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("it was not cancelled")


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def synchronous_code(sessions: Sessions) -> None:
    """Lazy loading: attribute access that queries, only possible inside a greenlet."""
    async with sessions() as session:

        def count_by_branch(session: Session) -> dict[str, int]:
            assert variable.get() == "outside"
            variable.set("inside")
            return {
                branch.name: len(branch.accounts)
                for branch in session.scalars(select(Branch).order_by(Branch.id))
            }

        variable.set("outside")
        counts = await session.run_sync(count_by_branch)
        assert variable.get() == "inside"
        assert counts == {f"branch {n}": ACCOUNTS // BRANCHES for n in range(BRANCHES)}, counts

    async with sessions() as session:
        account = (await session.scalars(select(Account).where(Account.id == 1))).one()
        # What it wanted to await is left behind.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            account.branch
        except StatementError as error:
            assert isinstance(error.orig, MissingGreenlet)
        else:
            raise AssertionError("a query outside of any greenlet")
        branch = await account.awaitable_attrs.branch
        assert branch.name == "branch 0"


async def query_back(sessions: Sessions, expected: dict[str, int]) -> None:
    """Compare every balance: as a stream, and from many sessions at once."""
    async with sessions() as session:
        stream = await session.stream(select(Account.owner, Account.balance))
        found = {owner: balance async for owner, balance in stream}
    assert found == expected

    async def one(owner: str) -> int:
        async with sessions() as session:
            balance: int = await session.scalar(
                select(Account.balance).where(Account.owner == owner)
            )
            return balance

    some = list(expected)[:200]
    assert await asyncio.gather(*map(one, some)) == [expected[owner] for owner in some]


async def bank(path: Path) -> None:
    engine = engine_for(path)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    expected = await fill(engine, sessions)
    print(f"{len(expected)} accounts")
    steps: list[Callable[[], Awaitable[None]]] = [
        lambda: transfers_at_once(sessions, expected),
        lambda: rollbacks(sessions, expected),
        lambda: synchronous_code(sessions),
        lambda: query_back(sessions, expected),
    ]
    for step in steps:
        await step()
    await engine.dispose()

    with sqlite3.connect(path) as connection:
        rows = dict(connection.execute("SELECT owner, balance FROM account"))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert rows == expected
    # Transfers move money; only the two changes by hand make any.
    assert sum(rows.values()) == ACCOUNTS * OPENING_BALANCE + 2 + 3
    print("every row is as expected")


def main() -> None:
    check_greenlet()
    print("sqlalchemy", sqlalchemy.__version__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "bank.db")
        asyncio.run(bank(path))


if __name__ == "__main__":
    main()
