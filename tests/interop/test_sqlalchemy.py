"""SQLAlchemy's asyncio engine, unmodified, on our greenlet."""

from __future__ import annotations

import pytest
from environment import make_environment


@pytest.mark.timeout(900)  # the first run builds a wheel and an environment
def test_a_bank_on_sqlalchemy_and_aiosqlite() -> None:
    environment = make_environment("sqlalchemy", "sqlalchemy[asyncio]>=2", "aiosqlite")
    output = environment.run("sqlalchemy_bank.py", timeout=120)
    assert "10000 accounts\n" in output
    assert "every row is as expected\n" in output, output
