"""The background work, done by whichever worker holds the database's lock."""

import asyncio
import contextlib
import logging
from typing import Protocol

import asyncpg

from freehold.chain.model import Progress
from freehold.chain.reader import LogReader
from freehold.db import Database
from freehold.ledger import jobs as ledger_jobs
from freehold.ledger.ledger import Ledger
from freehold.problems import Problem

log = logging.getLogger("freehold.app.jobs")

LOCK = "freehold-jobs"
POLL_S = 0.5
AGAIN_S = 1.0


class Follower(Protocol):
    """What turns the chain's progress into grants and ledger time."""

    async def follow(self, progress: Progress) -> object: ...


class Payments(Protocol):
    """What goes on with payments that nobody waits for."""

    async def run(self) -> None: ...


class Days(Protocol):
    """What closes days and publishes them."""

    async def run(self) -> None: ...


async def run_jobs(
    database: Database,
    reader: LogReader,
    follower: Follower,
    ledger: Ledger,
    payments: Payments | None = None,
    days: Days | None = None,
) -> None:
    """Wait for the lead, then work until it is lost; for ever, until cancelled."""
    while True:
        try:
            async with database.leader(LOCK) as lock:
                log.info("this worker runs the background jobs")
                await _while_leading(lock, reader, follower, ledger, payments, days)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Problem) as lost:
            log.warning("the background jobs pause: %s", lost)
        await asyncio.sleep(AGAIN_S)


async def _while_leading(
    lock: asyncpg.Connection,
    reader: LogReader,
    follower: Follower,
    ledger: Ledger,
    payments: Payments | None,
    days: Days | None,
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_follow(reader, follower), name="chain"),
            group.create_task(ledger_jobs.run(ledger), name="ledger"),
        ]
        if payments is not None:
            tasks.append(group.create_task(payments.run(), name="payments"))
        if days is not None:
            tasks.append(group.create_task(days.run(), name="days"))
        # A lost connection loses the lock: another worker may lead by then.
        while not lock.is_closed():
            with contextlib.suppress(asyncpg.InterfaceError):
                await lock.fetchval("select 1")
            await asyncio.sleep(AGAIN_S)
        for task in tasks:
            task.cancel()


async def _follow(reader: LogReader, follower: Follower) -> None:
    said = ""
    while True:
        try:
            await follower.follow(await reader.poll())
            said = ""
        except (Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as reason:
            if str(reason) != said:  # a node that stays away is told of once
                log.warning("the chain can't be followed: %s", reason)
            said = str(reason)
        except Exception:
            log.exception("the chain can't be followed; it is tried again")
        await asyncio.sleep(POLL_S)
