"""An account with a key, at a known ledger time, and a ledger that has started."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

import freehold
from freehold.clock import Day, SystemClock
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Charge, Grant, Hold, HoldRequest, KeyLimits, Settlement, Source

DAY = Day(21_000)
NOON = DAY.start_s + 43_200


@dataclass
class Bench:
    """A ledger and one account in it, with shorthands for what tests do over and over."""

    ledger: Ledger
    database: Database
    account_id: int
    key_id: int = 1

    def request(
        self, amount: int, *, least: int | None = None, request_id: UUID | None = None, key_id: int | None = None,
        price_version: int = 0, key_version: int = 1, day_unopened_ok: bool = False, tokens: int = 0,
        idempotency_key: str | None = None, body: bytes = b"body",
    ) -> HoldRequest:  # fmt: skip
        return HoldRequest(
            account_id=self.account_id,
            key_id=self.key_id if key_id is None else key_id,
            request_id=request_id or uuid4(),
            amount_nano=amount,
            least_nano=amount if least is None else least,
            price_version=price_version,
            key_version=key_version,
            day_unopened_ok=day_unopened_ok,
            tokens=tokens,
            idempotency_key=idempotency_key,
            body_digest=None if idempotency_key is None else body,
        )

    async def hold(self, amount: int, **of: object) -> Hold:
        return await self.ledger.hold(self.request(amount, **of))  # type: ignore[arg-type]

    async def settle(self, hold: Hold, cost: int, **of: object) -> Charge:
        return await self.ledger.settle(hold, settlement(cost, **of))

    async def prepaid(self, amount: int, external_id: str = "evt:1") -> Grant:
        return await self.ledger.grant(
            self.account_id, Source.PREPAID, amount, external_id, starts_at_s=0, expires_at_s=FOREVER_S
        )

    async def allowance(self, amount: int, day: Day = DAY) -> Grant | None:
        return await self.ledger.open_day(
            self.account_id, day.number, Source.ALLOWANCE, amount, f"day:{day.number}:allowance:open"
        )

    async def put_key(self, **limits: object) -> None:
        wanted = KeyLimits(**{"account_id": self.account_id, "key_id": self.key_id, "version": 1, **limits})  # type: ignore[arg-type]
        async with self.database.transaction() as conn:
            await self.ledger.put_key(conn, wanted)

    async def available(self, source: Source | None = None) -> int:
        balance = await self.ledger.balance(self.account_id)
        return sum(p.available_nano for p in balance.purses if source in (None, p.source))

    async def held(self) -> int:
        return sum(grant.held_nano for grant in await self.ledger.grants(self.account_id, live_only=False))

    async def line(self, name: str) -> int:
        """The sum of one line of the chart over all accounts."""
        total = await self.database.fetchval("select sum(amount) from ledger.entries where line = $1", name)
        return int(total or 0)


def settlement(cost: int, **of: object) -> Settlement:
    given = {"model": "small", "usage": {"input": 3, "output": 5}, **of}
    return Settlement(cost_nano=cost, **given)  # type: ignore[arg-type]


async def new_account(ledger: Ledger, database: Database) -> int:
    async with database.transaction() as conn:
        account_id = await ledger.create_account(conn)
        await ledger.put_key(conn, KeyLimits(account_id=account_id, key_id=1, version=1))
    return account_id


async def drained(database_url: str, account_id: int) -> list[int]:
    """How many of 32 callers each of two processes admitted."""
    environment = {**os.environ, "PYTHONPATH": str(Path(freehold.__file__).parents[1])}
    drains = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("drain.py")),
            database_url,
            str(account_id),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    return [int((await drain.communicate())[0]) for drain in drains]


EMPTY = """
set session_replication_role = replica;
truncate ledger.accounts, ledger.keys, ledger.grants, ledger.epochs, ledger.holds, ledger.postings, ledger.charges
    restart identity cascade;
update ledger.clock set at_s = 0, refreshed_at = 'epoch', opened_day = -1;
delete from ledger.price_versions where version > 0;
"""


@pytest.fixture(scope="session")
async def shared_url(postgres_url: str, migrated_template: str) -> str:
    """One database for all tests here: emptying it takes a tenth of making one."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"create database ledger_tests template {migrated_template}")
    await connection.close()
    return urlunsplit(urlsplit(postgres_url)._replace(path="/ledger_tests"))


@pytest.fixture
async def database_url(shared_url: str) -> AsyncIterator[str]:
    yield shared_url
    connection = await asyncpg.connect(shared_url)
    await connection.execute(EMPTY)
    await connection.close()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    async with Ledger(database, clock=SystemClock()) as started:
        await started.set_time(NOON, opened_day=DAY.number - 1)
        yield started


@pytest.fixture
async def bench(ledger: Ledger, database: Database) -> AsyncIterator[Bench]:
    """Its books are checked when the test is over."""
    yield Bench(ledger, database, await new_account(ledger, database))
    assert await ledger.check() == []
