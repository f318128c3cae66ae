"""`freehold books check`: everything recomputed from the entries and the open holds, law by law."""

from freehold.db import Database, statements
from freehold.ledger.model import Difference


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
