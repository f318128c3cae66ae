"""PostgreSQL: a pool, named statements from `.sql` files, numbered forward migrations, one retry rule, one leader.

Knows no table but its own `schema_migrations`.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
from asyncpg.pgproto import pgproto
from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"""What a verb that joins its caller's transaction takes."""

RETRYABLE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
"""The connection is gone or unusable: whether what it was doing was committed is unknown."""
_MIGRATION_LOCK = 0x6672_6565_0001
_NAME = re.compile(r"^--\s*name:\s*(\w+)\s*$", re.MULTILINE)
_FILE = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


def random_id() -> UUID:
    """As `uuid4`, in a third of its time: of the class that asyncpg gives, which is a UUID and is sent as it stands."""
    drawn = bytearray(os.urandom(16))
    drawn[6] = drawn[6] & 0x0F | 0x40
    drawn[8] = drawn[8] & 0x3F | 0x80
    made: UUID = pgproto.UUID(bytes(drawn))
    return made


class MigrationError(Exception):
    """The database's schema and this program don't fit; the text says how."""


def statements(package: str, filename: str = "queries.sql") -> dict[str, str]:
    """The named statements of a package's `.sql` file: each begins with a line `-- name: <name>`."""
    text = files(package).joinpath(filename).read_text("utf-8")
    parts = _NAME.split(text)
    named = dict(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True))
    if len(named) * 2 != len(parts) - 1:
        raise ValueError(f"{package}/{filename} names a statement twice")
    return named


_SESSION = {"timezone": "UTC", "default_transaction_isolation": "read committed"}
"""Whatever the server's defaults are; a pool's reset comes back to these. A verb that locks and then reads must see what
was committed while it waited: a serializable one reads from before, and may tell a call that was sent again a refusal
although the first was applied."""


class Database:
    """A pool on one PostgreSQL database."""

    def __init__(self, pool: asyncpg.Pool, url: str) -> None:
        self.pool = pool
        self.url = url

    @classmethod
    async def connect(cls, url: str, *, min_size: int = 1, max_size: int = 10) -> "Database":
        """Open a pool. Raises OSError or asyncpg.PostgresError when the server can't be reached or refuses."""
        pool = await asyncpg.create_pool(
            url, min_size=min_size, max_size=max_size, server_settings=_SESSION, timeout=10
        )
        return cls(pool, url)

    async def close(self) -> None:
        await self.pool.close()

    async def dedicated(self) -> asyncpg.Connection:
        """A connection outside the pool, for one who keeps it (the batching ledger, the leader's lock)."""
        connection: asyncpg.Connection = await asyncpg.connect(self.url, server_settings=_SESSION, timeout=10)
        return connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a READ COMMITTED transaction, committed at the end, rolled back by an exception."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def transact(self, work: Callable[[Connection], Awaitable[T]], *, tries: int = 8) -> T:
        """Run `work` in a transaction, and again after a serialization failure or a deadlock (40001, 40P01)."""
        for attempt in range(tries):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except RETRYABLE:
                if attempt == tries - 1:
                    raise
                await asyncio.sleep(0.002 * 2**attempt)
        raise AssertionError("unreachable: the last try returns or raises")

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        return list(await self.pool.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: Any) -> asyncpg.Record | None:
        return await self.pool.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self.pool.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        return str(await self.pool.execute(sql, *args))

    async def migrate(self) -> list[str]:
        """Apply what is missing of `freehold/migrations`, in order, under a lock; returns the names applied.

        Raises MigrationError when an applied migration has changed since, or the database is ahead of this program.
        """
        steps = _migrations()
        applied: list[str] = []
        async with self.pool.acquire() as connection:
            await connection.execute("select pg_advisory_lock($1)", _MIGRATION_LOCK)
            try:
                await connection.execute(
                    "create table if not exists schema_migrations("
                    "number int primary key, name text not null, digest text not null,"
                    " applied_at timestamptz not null default now())"
                )
                done = {
                    row["number"]: row for row in await connection.fetch("select * from schema_migrations order by 1")
                }
                unknown = sorted(set(done) - set(steps))
                if unknown:
                    raise MigrationError(
                        f"The database has migration {done[unknown[-1]]['name']}, which this Freehold doesn't know: "
                        "it was written by a newer one. Start that version, or restore a backup."
                    )
                for number, (name, sql) in sorted(steps.items()):
                    digest = hashlib.sha256(sql.encode()).hexdigest()
                    if number in done:
                        if done[number]["digest"] != digest:
                            raise MigrationError(
                                f"Migration {name} is not the one that this database was made with; "
                                "migrations are never edited. Reinstall the version that made it, or use a new --data."
                            )
                        continue
                    async with connection.transaction():
                        await connection.execute(sql)
                        await connection.execute(
                            "insert into schema_migrations(number, name, digest) values($1, $2, $3)",
                            number,
                            name,
                            digest,
                        )
                    applied.append(name)
            finally:
                await connection.execute("select pg_advisory_unlock($1)", _MIGRATION_LOCK)
        return applied

    @asynccontextmanager
    async def leader(self, name: str, *, poll_s: float = 1.0) -> AsyncIterator[asyncpg.Connection]:
        """Wait until this process holds the advisory lock `name`; yield the connection that holds it.

        The lock is lost when that connection closes, so whoever leads checks `connection.is_closed()`.
        """
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        connection = await self.dedicated()
        try:
            # Polled: a statement that waits inside PostgreSQL would hold back its vacuum for as long.
            while not await connection.fetchval("select pg_try_advisory_lock($1)", key):  # noqa: ASYNC110
                await asyncio.sleep(poll_s)
            yield connection
        finally:
            await connection.close()


def _migrations() -> dict[int, tuple[str, str]]:
    steps: dict[int, tuple[str, str]] = {}
    folder: Traversable = files("freehold").joinpath("migrations")
    for item in folder.iterdir():
        found = _FILE.match(item.name)
        if not found:
            continue
        number = int(found.group(1))
        if number in steps:
            raise MigrationError(f"Two migrations carry the number {number:04}.")
        steps[number] = (item.name.removesuffix(".sql"), item.read_text("utf-8"))
    return steps
