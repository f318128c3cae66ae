"""What the ledger needs done in the background, by whichever worker leads."""

import asyncio
import logging

import asyncpg

from freehold.ledger.ledger import Ledger
from freehold.problems import LedgerUnavailable

log = logging.getLogger(__name__)

EVERY_S = 5.0


async def run(ledger: Ledger, *, every_s: float = EVERY_S) -> None:
    """Sweep lapsed workers' holds, post ended grants' breakage and drop old idempotency keys, until cancelled."""
    while True:
        try:
            await once(ledger)
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
