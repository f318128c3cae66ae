"""What a day came to, over all accounts: its charges, and what moved in each purse. For who closes days."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from freehold.db import Connection, Database, statements
from freehold.ledger.ledger import charge_of
from freehold.ledger.model import Charge, Source

_SQL = statements("freehold.ledger", "days.sql")


@dataclass(frozen=True, slots=True)
class Moved:
    """What moved in one purse, nano-USD. `expired` counts what a reorg took back, too."""

    granted_nano: int
    used_nano: int
    expired_nano: int


async def first_day(database: Database) -> int | None:
    """Number of the first day that has anything in the books."""
    found: int | None = await database.fetchval(_SQL["first_day"])
    return found


async def is_over(database: Database, day: int) -> bool:
    """Whether nothing of the day can change any more.

    Its end is confirmed on the chain, no hold of it or of a day before is open, and what was left of its allowance is
    written off.
    """
    return bool(await database.fetchval(_SQL["is_over"], day))


async def charges(conn: Connection, day: int, *, at_once: int) -> AsyncIterator[list[Charge]]:
    """Every charge of the day, so many at a time, in the caller's transaction."""
    cursor = await conn.cursor(_SQL["charges"], day)
    while rows := await cursor.fetch(at_once):
        yield [charge_of(row) for row in rows]


async def account_charges(
    database: Database, account_id: int, first: int, after: int, *, cursor: tuple[int, int] | None, limit: int
) -> tuple[list[Charge], tuple[int, int] | None]:
    """An account's charges of the days from `first` to before `after`, oldest first; and where the next page begins."""
    at_s, position = cursor or (None, None)
    rows = await database.fetch(_SQL["account_charges"], account_id, first, after, at_s, position, limit + 1)
    more = rows[limit - 1] if len(rows) > limit else None
    return [charge_of(row) for row in rows[:limit]], (more["at_s"], more["position"]) if more else None


async def moved(conn: Connection, day: int) -> Mapping[Source, Moved]:
    """What moved in each purse: allowance and strips by the day of their grants, the others by the day it happened."""
    rows = await conn.fetch(_SQL["moved"], day)
    return {Source(row["source"]): Moved(row["granted"], row["used"], row["expired"]) for row in rows}
