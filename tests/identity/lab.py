"""What tests of identity and of the account API share."""

from freehold.db import Database


async def everything_stored(database: Database) -> str:
    """The text of every row of every table."""
    tables = await database.fetch(
        "select format('%I.%I', schemaname, tablename) as name from pg_tables"
        " where schemaname not in ('pg_catalog', 'information_schema')"
    )
    rows = [row["t"] for table in tables for row in await database.fetch(f"select t::text from {table['name']} t")]
    return "\n".join(rows)
