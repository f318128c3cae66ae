"""`freehold books check`: everything recomputed from the entries and the open holds, law by law."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from freehold.db import Connection, Database, statements
from freehold.ledger.model import Difference, Source


@dataclass(frozen=True, slots=True)
class Issued:
    """One grant as its entries tell: issued in all, less what was taken back."""

    source: Source
    external_id: str
    starts_at_s: int
    amount_nano: int


@dataclass(frozen=True, slots=True)
class IssuedAccount:
    account_id: int
    opened_day: int
    """Newest day whose allowance was asked about; -1: none yet."""
    grants: tuple[Issued, ...]


async def check(database: Database) -> list[Difference]:
    """Each law's violations, all read from one snapshot."""
    differences: list[Difference] = []
    async with (
        database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        for name, sql in statements("freehold.ledger", "books.sql").items():
            law = name.replace("_", " ")
            for row in await connection.fetch(sql):
                differences.append(
                    Difference(
                        law=law,
                        account_id=row["account_id"],
                        subject=row["subject"],
                        expected=str(row["expected"]),
                        found=str(row["found"]),
                    )
                )
    return differences


async def issued(
    connection: Connection, sources: Collection[Source], account_id: int | None = None
) -> list[IssuedAccount]:
    """What accounts were granted from `sources`, from the entries alone; of one account, or of all, by id."""
    rows = await connection.fetch(statements("freehold.ledger", "issued.sql")["issued"], account_id, list(sources))
    return [
        IssuedAccount(
            account_id=of_account,
            opened_day=found[0]["opened_day"],
            grants=tuple(
                Issued(Source(row["source"]), row["external_id"], row["starts_at_s"], int(row["amount"]))
                for row in found
                if row["source"] is not None
            ),
        )
        for of_account, group in groupby(rows, key=itemgetter("account_id"))
        if (found := list(group))
    ]
