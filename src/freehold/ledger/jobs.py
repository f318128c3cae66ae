"""What the ledger needs done in the background, by whichever worker leads."""

import asyncio
import logging

import asyncpg

from freehold.ledger.ledger import Ledger
from freehold.problems import LedgerUnavailable

log = logging.getLogger(__name__)

EVERY_S = 5.0
TIDY_EVERY_S = 600.0


async def run(ledger: Ledger, *, every_s: float = EVERY_S) -> None:
    """Sweep lapsed workers' holds, post ended grants' breakage and drop old idempotency keys, until cancelled.

    Every `TIDY_EVERY_S`, what is over is dropped too.
    """
    clock, due_s = asyncio.get_running_loop(), 0.0
    while True:
        try:
            await once(ledger)
            if clock.time() >= due_s:
                await tidy(ledger)
                due_s = clock.time() + TIDY_EVERY_S
        except (LedgerUnavailable, asyncpg.PostgresError) as fault:
            log.warning("the ledger's jobs are tried again in %g s: %s", every_s, fault)
        await asyncio.sleep(every_s)


async def once(ledger: Ledger, *, limit: int = 500) -> tuple[int, int]:
    """(holds swept, grants expired): everything that is due, in steps of `limit`."""
    swept = expired = 0
    while step := await ledger.sweep(limit=limit):
        swept += step
    while step := await ledger.expire(limit=limit):
        expired += step
    while await ledger.forget_answers(limit):
        continue
    return swept, expired


async def tidy(ledger: Ledger, *, limit: int = 5_000) -> int:
    """Drop released holds, idle counts of a minute and workers' lives of more than a day ago; how many rows."""
    gone = 0
    while step := await ledger.forget_ended(limit=limit):
        gone += step
    return gone
