"""One account per posting: the schema can be spread over machines by account, and every statement keeps to it.

Read from the database as migrated (tables, views, functions) and from the named statements.
"""

import re
from collections.abc import Iterator

import pytest

from freehold.db import Database, statements

from .conftest import Bench

REFERENCE = {
    "clock": "one row: ledger time",
    "price_versions": "one row for each version, and when it begins",
    "epochs": "one row per worker's life",
    "chart": "the lines' names",
}
"""Tables that aren't any account's: small, and copied to every machine."""

ACROSS = {
    "sweep": "finds lapsed workers' holds, and ends each in its own account",
    "expire": "finds ended grants, and posts each to its own account",
    "forget_ended": "drops released holds and idle counts, each by its account, and workers' lives",
    "forget_answers": "drops keys whose time is over, each by its account and key",
}
"""Background work that looks over all accounts for what is due."""

REFERENCED = re.compile(
    r"\bledger\.([a-z_]+)\b(?!\s*\()(?:\s+(?:as\s+)?(?!set\b|on\b|where\b|values\b|default\b)([a-z]\w*))?"
)
WRITTEN = re.compile(
    r"insert into ledger\.(postings|charges)\b[^(]*\(\s*account_id\b[^)]*\)\s*(?:select|values\s*\()\s*([^,]+),", re.S
)
JOINED = re.compile(r"(?:join ledger\.(\w+)(?: \w+)?|\) \w+)\s+(?:on|using)\s+(.+)")
ONE_ACCOUNT = {"p_account", "g.account_id", "p_accounts[x.item]"}
"""A parameter, the row of the loop, the account of one item."""


def plain(sql: str) -> str:
    """Lower case, without comments and strings' contents."""
    return re.sub(r"'[^']*'", "''", re.sub(r"--[^\n]*", "", sql)).lower()


def untied(sql: str, tables: set[str]) -> Iterator[str]:
    """Tables of accounts that a statement reads or writes without naming the account."""
    text = plain(sql)
    for table, alias in REFERENCED.findall(text):
        if table not in tables or re.search(rf"insert into ledger\.{table}\b", text):
            continue
        column = r"(?:account_id|id)" if table == "accounts" else "account_id"
        name = rf"{alias}\.{column}" if alias and f"{alias}." in text else column
        tied = rf"\b{name}\s*(?:=|<)|(?:=|<=)\s*{name}\b|\({name}(?:, \w+\.\w+)*\) in|using \(account_id"
        if not re.search(tied, text):
            yield table


async def owned(database: Database) -> set[str]:
    """Names of the ledger's tables and views that hold accounts' rows."""
    rows = await database.fetch(
        "select c.relname as name from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'v') and a.attname = 'account_id'"
    )
    return {row["name"] for row in rows} | {"accounts"}


async def functions(database: Database) -> dict[str, str]:
    rows = await database.fetch(
        "select proname as name, prosrc as body from pg_proc where pronamespace = 'ledger'::regnamespace"
    )
    return {row["name"]: row["body"] for row in rows}


async def test_every_tables_key_begins_with_its_account(database: Database) -> None:
    rows = await database.fetch(
        "select c.relname as name, (select a.attname from pg_attribute a"
        "   where a.attrelid = c.oid and a.attnum = i.indkey[0]) as first"
        " from pg_class c left join pg_index i on i.indrelid = c.oid and i.indisprimary"
        " where c.relnamespace = 'ledger'::regnamespace and c.relkind = 'r'"
    )
    first = {row["name"]: row["first"] for row in rows}
    assert set(REFERENCE) <= set(first)
    assert first.pop("accounts") == "id"
    assert {name: column for name, column in first.items() if name not in REFERENCE and column != "account_id"} == {}


async def test_every_unique_index_names_the_account(database: Database) -> None:
    rows = await database.fetch(
        "select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as made from pg_index i"
        " join pg_class c on c.oid = i.indrelid where c.relnamespace = 'ledger'::regnamespace and i.indisunique"
    )
    loose = {row["name"] for row in rows if "account_id" not in row["made"]}
    assert loose == {"ledger.accounts_pkey", *(f"ledger.{name}_pkey" for name in REFERENCE)}


async def test_every_posting_and_charge_takes_its_account_from_one_item(database: Database) -> None:
    found: list[tuple[str, str]] = []
    for name, body in (await functions(database)).items():
        written = WRITTEN.findall(body)
        assert len(written) == len(re.findall(r"insert into ledger\.(?:postings|charges)\b", body)), name
        found += [(name, account.strip()) for _, account in written]
    assert {account for _, account in found} <= ONE_ACCOUNT, found
    assert {name for name, _ in found} == {
        "settle_batch",
        "grant_credit",
        "raise_day",
        "reverse_grant",
        "restore_grant",
        "expire",
    }
    assert not any("postings" in sql and "insert" in sql for sql in statements("freehold.ledger").values())


async def test_no_function_joins_across_accounts(database: Database) -> None:
    tables = await owned(database)
    loose = {
        (name, table)
        for name, body in (await functions(database)).items()
        if name not in ACROSS
        for statement in body.split(";")
        for table in untied(statement, tables)
    }
    assert loose == set()


async def test_no_named_statement_leaves_its_account(database: Database) -> None:
    tables = await owned(database)
    loose = {(name, table) for name, sql in statements("freehold.ledger").items() for table in untied(sql, tables)}
    assert loose == set()


async def test_each_law_compares_rows_of_one_account() -> None:
    joins = [
        (name, table, condition)
        for name, sql in statements("freehold.ledger", "books.sql").items()
        for table, condition in JOINED.findall(plain(sql))
        if table not in REFERENCE
    ]
    assert len(joins) > 10
    assert [join for join in joins if "account_id" not in join[2]] == []


async def test_what_looks_over_all_accounts_is_what_is_listed(database: Database) -> None:
    tables = await owned(database)
    bodies = await functions(database)
    assert {name for name in ACROSS if any(True for _ in untied(bodies[name], tables))} <= set(ACROSS)
    assert set(ACROSS) <= set(bodies)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 from ledger.grants g join ledger.charges c on c.model = g.source where g.account_id = $1",
        "update ledger.grants set available = 0",
        "select sum(available) from ledger.grants g",
        "delete from ledger.idempotency i where i.key = $1",
    ],
)
async def test_a_statement_that_leaves_its_account_is_found(database: Database, sql: str) -> None:
    assert list(untied(sql, await owned(database))) != []


async def test_a_call_finds_its_accounts_grants_by_one_index(bench: Bench) -> None:
    """Each further one is a page more of each account, which with many accounts is in no cache."""
    await bench.prepaid(1_000)
    await bench.allowance(10)

    async def looks() -> dict[str, int]:
        await bench.database.execute("select pg_stat_force_next_flush()")  # what the grants were made with
        for batches in (bench.ledger._holds, bench.ledger._endings):
            assert batches._connection is not None
            await batches._connection.execute("select pg_stat_force_next_flush()")
        rows = await bench.database.fetch(
            "select indexrelname as name, idx_scan from pg_stat_user_indexes"
            " where schemaname = 'ledger' and relname = 'grants'"
        )
        return {row["name"]: row["idx_scan"] for row in rows}

    before = await looks()
    charge = await bench.settle(await bench.hold(30), 25)
    assert [leg.amount_nano for leg in charge.legs] == [10, 15]
    after = await looks()
    assert {name for name, count in after.items() if count > before[name]} == {"grants_alive"}
