"""A few sums over all accounts, for who watches a server: read from small indexes, at any time."""

from dataclasses import dataclass

from freehold.db import Database, statements


@dataclass(frozen=True, slots=True)
class Totals:
    holds: int
    """Open now."""
    held_nano: int
    oldest_hold_s: float
    overage_nano: int
    unsettled_nano: int
    reorg_nano: int
    """What the operator has borne: cost above holds, calls of workers that died, credit that reorgs took back."""


async def totals(database: Database) -> Totals:
    row = await database.fetchrow(statements("freehold.ledger", "totals.sql")["totals"])
    if row is None:
        raise LookupError("a select without a from has one row")
    return Totals(*row)
