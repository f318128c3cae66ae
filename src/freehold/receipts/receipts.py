"""Receipts and closed days over one database: closing, receipts with signature and proof, and the check of both."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.clock import Day
from freehold.db import Connection, Database, statements
from freehold.ledger import days
from freehold.ledger.model import Charge, Difference, Source
from freehold.receipts import tree
from freehold.receipts.model import (
    PURSES,
    ClosedDay,
    Domain,
    PurseTotals,
    Receipt,
    day_hash,
    receipt_hash,
    receipt_of,
)
from freehold.receipts.signing import ReceiptKey

log = logging.getLogger(__name__)

_SQL = statements("freehold.receipts")
CHUNK = 1_024
"""Nodes in one row of the tree."""
AT_ONCE = 1_000
"""Charges that are hashed at once, away from the event loop."""
_LASTING = (Source.PROMO, Source.PREPAID)


class DayUneven(Exception):
    """A purse of a day doesn't add up, so the day isn't closed: the text says which."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A receipt as it is handed out."""

    receipt: Receipt
    hash: bytes
    signature: bytes | None
    """None where this server has no key for receipts."""
    root: bytes | None
    """Of its day; None until that is closed."""
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A closed day, and what was last seen of it in the chain's book."""

    closed: ClosedDay
    root: bytes | None
    """None: the book didn't have it."""
    totals_hash: bytes | None

    def right(self) -> bool:
        return (self.root, self.totals_hash) == (self.closed.root, self.closed.totals_hash())


class Receipts:
    """`address_of` says which address an account has; `key` signs, None leaves receipts unsigned."""

    def __init__(
        self,
        database: Database,
        domain: Domain,
        *,
        address_of: Callable[[int], Awaitable[str]],
        key: ReceiptKey | None = None,
    ) -> None:
        self.domain = domain
        self._database = database
        self._separator = domain.separator()
        self._of = (domain.chain_id, domain.book)
        self._address_of = address_of
        self._key = key
        self._first: int | None = None
        """The first day that has anything in the books, once it is known: it takes reading them all."""

    @property
    def signer(self) -> str | None:
        """Address of the key that signs."""
        return self._key.address if self._key else None

    # ---- one receipt

    async def signed(self, charge: Charge) -> Signed:
        """The charge's receipt, signed; with its proof once its day is closed."""
        receipt = receipt_of(charge, await self._address_of(charge.account_id))
        digest = receipt_hash(receipt, self.domain, self._separator)
        closed = await self.day(charge.day)
        siblings = await self._siblings(closed, tree.leaf(digest)) if closed else None
        return Signed(
            receipt,
            digest,
            self._key.sign(digest) if self._key else None,
            closed.root if closed and siblings is not None else None,
            tuple(siblings or ()),
        )

    async def _siblings(self, closed: ClosedDay, leaf: bytes) -> list[bytes] | None:
        """From the bottom up; None for a leaf that isn't there."""
        row = await self._database.fetchrow(_SQL["leaf_chunk"], *self._of, closed.day, leaf)
        if row is None:
            return None
        hashes: bytes = row["hashes"]
        found = [at for at in range(0, len(hashes), 32) if hashes[at : at + 32] == leaf]
        if not found:
            return None
        place, count = row["chunk"] * CHUNK + found[0] // 32, closed.count
        wanted: list[tuple[int, int, int]] = []
        level = 0
        while count > 1:
            if place ^ 1 < count:
                wanted.append((level, (place ^ 1) // CHUNK, (place ^ 1) % CHUNK))
            place, count, level = place // 2, -(-count // 2), level + 1
        rows = await self._database.fetch(
            _SQL["siblings"], *self._of, closed.day, *([step[part] for step in wanted] for part in range(3))
        )
        return [sibling["hash"] for sibling in rows]

    # ---- days

    async def day(self, day: int) -> ClosedDay | None:
        """A closed day, or None."""
        row = await self._database.fetchrow(_SQL["day"], *self._of, day)
        return None if row is None else _closed(row)

    async def days(self, *, before: int | None = None, limit: int = 31) -> list[ClosedDay]:
        """Closed days, the newest first."""
        return [_closed(row) for row in await self._database.fetch(_SQL["days"], *self._of, before, limit)]

    def sign_day(self, closed: ClosedDay) -> bytes | None:
        """The signature of a day's root, count and totals."""
        return self._key.sign(day_hash(closed, self.domain)) if self._key else None

    async def close_next(self) -> ClosedDay | None:
        """Close the next day, if it is over; None when there is nothing to close yet. Raises DayUneven.

        Only whoever leads the background work calls this: days are closed one after another, without a gap.
        """
        row = await self._database.fetchrow(_SQL["newest"], *self._of)
        before = None if row is None else _closed(row)
        day = await self._first_day() if before is None else before.day + 1
        if day is None or not await days.is_over(self._database, day):
            return None
        hashed = _Hashed(self.domain)
        async with self._database.pool.acquire() as conn, conn.transaction(isolation="repeatable_read"):
            async for batch in days.charges(conn, day, at_once=AT_ONCE):
                await self._hash(hashed, batch)
            totals = _totals(await days.moved(conn, day), before)
            levels = await asyncio.to_thread(tree.levels, hashed.leaves)
            closed = ClosedDay(day, tree.root(levels), len(hashed.leaves), totals)
            _require_even(closed, hashed.used_nano)
            await self._write(conn, closed, levels)
        log.info("day %s is closed: %d receipts", Day(day), closed.count)
        return closed

    async def unclosed(self, today: int) -> int:
        """How many days before `today` aren't closed yet."""
        row = await self._database.fetchrow(_SQL["newest"], *self._of)
        first = await self._first_day() if row is None else row["day"] + 1
        return 0 if first is None else max(0, today - first)

    async def _first_day(self) -> int | None:
        if self._first is None:
            self._first = await days.first_day(self._database)
        return self._first

    async def _hash(self, hashed: "_Hashed", batch: Sequence[Charge]) -> None:
        for account_id in {charge.account_id for charge in batch} - hashed.addresses.keys():
            hashed.addresses[account_id] = await self._address_of(account_id)
        await asyncio.to_thread(hashed.add, batch)

    async def _write(self, conn: Connection, closed: ClosedDay, levels: Sequence[Sequence[bytes]]) -> None:
        totals = {source.value: closed.totals[source].row() for source in PURSES}
        await conn.execute(_SQL["close"], *self._of, closed.day, closed.root, closed.count, json.dumps(totals))
        await conn.executemany(
            _SQL["add_nodes"],
            [
                (*self._of, closed.day, level, at // CHUNK, nodes[at], b"".join(nodes[at : at + CHUNK]))
                for level, nodes in enumerate(levels)
                for at in range(0, len(nodes), CHUNK)
            ],
        )

    # ---- what the chain says, and the check

    async def saw(self, day: int, root: bytes, totals_hash: bytes) -> None:
        """Keep what the chain's book says of a day."""
        await self._database.execute(_SQL["saw"], *self._of, day, root, totals_hash)

    async def forget_from(self, day: int) -> None:
        """The chain's book doesn't have these days (any more)."""
        await self._database.execute(_SQL["forget"], *self._of, day)

    async def standing(self, *, since: int = 0) -> list["Seen"]:
        """Each closed day and what was last seen of it in the book, oldest first."""
        return [_seen(row) for row in await self._database.fetch(_SQL["published"], *self._of, since)]

    async def check(self, *, since: int = 0, patience_days: int = 1) -> list[Difference]:
        """Closed days against the ledger's charges, and against what was seen in the chain's book.

        A day is missing there when more than `patience_days` later ones are closed.
        """
        found: list[Difference] = []
        standing = await self.standing(since=since)
        for at, seen in enumerate(standing):
            closed = seen.closed
            name = str(Day(closed.day))
            again = await self._again(closed.day)
            if again != closed.root:
                found.append(
                    Difference("a closed day's root is over its receipts", None, name, _hex(again), _hex(closed.root))
                )
            if seen.root is None:
                if len(standing) - at > patience_days:
                    found.append(Difference("each closed day is published", None, name, _hex(closed.root), "nothing"))
            elif not seen.right():
                found.append(
                    Difference("what is published is what was closed", None, name, _hex(closed.root), _hex(seen.root))
                )
        return found

    async def _again(self, day: int) -> bytes:
        """The root as the ledger's charges give it now."""
        hashed = _Hashed(self.domain)
        async with self._database.pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            async for batch in days.charges(conn, day, at_once=AT_ONCE):
                await self._hash(hashed, batch)
        return tree.root(await asyncio.to_thread(tree.levels, hashed.leaves))


class _Hashed:
    """The leaves of a day as they are made."""

    def __init__(self, domain: Domain) -> None:
        self.leaves: list[bytes] = []
        self.used_nano = 0
        self.addresses: dict[int, str] = {}
        self._domain = domain
        self._separator = domain.separator()

    def add(self, batch: Sequence[Charge]) -> None:
        for charge in batch:
            receipt = receipt_of(charge, self.addresses[charge.account_id])
            self.leaves.append(tree.leaf(receipt_hash(receipt, self._domain, self._separator)))
            self.used_nano += charge.cost_nano


def _totals(moved: Mapping[Source, days.Moved], before: ClosedDay | None) -> dict[Source, PurseTotals]:
    found = {}
    for purse in PURSES:
        now = moved[purse]
        opening = before.totals[purse].closing if before is not None and purse in _LASTING else 0
        left = opening + now.granted_nano - now.used_nano - now.expired_nano
        found[purse] = PurseTotals(opening, now.granted_nano, now.used_nano, now.expired_nano, left)
    return found


def _require_even(closed: ClosedDay, used_nano: int) -> None:
    """What ends with its day has nothing left, nothing is negative, and there are receipts where something was used."""
    for purse, totals in closed.totals.items():
        if min(totals.row()) < 0 or (purse not in _LASTING and totals.closing):
            raise DayUneven(f"{Day(closed.day)} can't be closed: {purse} doesn't add up {totals.row()}")
    if closed.count == 0 and any(totals.used for totals in closed.totals.values()):
        raise DayUneven(f"{Day(closed.day)} can't be closed: something was used, and there is no receipt")


def _closed(row: Any) -> ClosedDay:
    totals = json.loads(row["totals"])
    return ClosedDay(
        row["day"], row["root"], row["count"], {purse: PurseTotals(*totals[purse.value]) for purse in PURSES}
    )


def _seen(row: Any) -> Seen:
    return Seen(_closed(row), row["their_root"], row["their_totals"])


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
