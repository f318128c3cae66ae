"""What an operator does on the server's machine without going through its HTTP door."""

import asyncio
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from freehold.allowance.allowance import Allowance
from freehold.app.closing import receipts_of
from freehold.app.first import open_database
from freehold.app.plan import load_deployment
from freehold.app.settings import Settings
from freehold.chain.model import Deployment
from freehold.chain.store import Store
from freehold.clock import SystemClock
from freehold.db import Database
from freehold.host.postgres import Postgres
from freehold.host.process import HostError
from freehold.identity.identity import Identity
from freehold.identity.settings import IdentitySettings
from freehold.ledger import books
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Difference


def books_check(settings: Settings) -> list[Difference]:
    """Every difference in the books, whether the server runs or not; empty when they balance.

    Of a server that doesn't run, the embedded PostgreSQL is started for the moment. Raises HostError.
    """
    with database_url(settings) as url:
        return asyncio.run(_check(url, settings))


async def _check(url: str, settings: Settings) -> list[Difference]:
    file = settings.deployment or settings.data / "deployment.toml"
    database = await open_database(url)
    try:
        found = await books.check(database)
        if file.exists():
            found += await _chain_check(database, load_deployment(file, settings.operator, settings.confirmations))
        return found
    except asyncpg.PostgresError as reason:
        raise HostError(f"The books can't be checked: {reason}.") from None
    finally:
        await database.close()


async def _chain_check(database: Database, deployment: Deployment) -> list[Difference]:
    """Grants against what was read of the chain."""
    clock = SystemClock()
    identity = Identity(database, clock=clock, settings=IdentitySettings("127.0.0.1", deployment.chain_id))
    found = await Allowance(Ledger(database, clock=clock), Store(database), identity, deployment).check()
    return [*found, *await receipts_of(database, deployment, identity).check()]


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The URL of the server's database: one's own, that of the running server, or one started for the moment."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    data = settings.data
    if not (data / "postgres").is_dir():
        raise HostError(f"{data} holds no database; name the server's data directory with --data.")
    with (data / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield _running(data)
            return
        server = Postgres.start(data)
        try:
            yield server.url
        finally:
            server.stop()


def _running(data: Path) -> str:
    try:
        return str(json.loads((data / "run" / "postgres.json").read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        raise HostError(f"The server on {data} is starting or stopping; try again in a moment.") from None
