import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from uuid import RFC_4122, UUID

import asyncpg
import pytest

from freehold.db import Connection, Database, MigrationError, random_id, statements


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(empty_database_url, max_size=8)
    yield database
    await database.close()


async def test_migrations_are_applied_in_order_and_once(empty: Database) -> None:
    applied = await empty.migrate()
    names = sorted(
        item.name.removesuffix(".sql")
        for item in files("freehold").joinpath("migrations").iterdir()
        if item.name.endswith(".sql")
    )
    assert applied == names
    assert await empty.migrate() == []


async def test_several_that_migrate_together_apply_each_step_once(empty: Database) -> None:
    applied = await asyncio.gather(*(empty.migrate() for _ in range(4)))
    assert sorted(bool(names) for names in applied) == [False, False, False, True]


async def test_an_edited_migration_is_refused(empty: Database) -> None:
    await empty.migrate()
    await empty.execute("update schema_migrations set digest = 'other' where number = 1")
    with pytest.raises(MigrationError, match="0001_ledger is not the one"):
        await empty.migrate()


async def test_a_database_of_a_newer_program_is_refused(empty: Database) -> None:
    await empty.migrate()
    await empty.execute("insert into schema_migrations (number, name, digest) values (9999, '9999_later', '')")
    with pytest.raises(MigrationError, match="9999_later"):
        await empty.migrate()


async def test_a_transaction_is_undone_by_an_exception(empty: Database) -> None:
    await empty.execute("create table t (n int)")
    with pytest.raises(ZeroDivisionError):
        async with empty.transaction() as conn:
            await conn.execute("insert into t values (1)")
            raise ZeroDivisionError
    assert await empty.fetchval("select count(*) from t") == 0


async def test_work_that_meets_a_serialization_failure_is_done_again(empty: Database) -> None:
    await empty.execute("create table t (n int)")
    tries = 0

    async def work(conn: Connection) -> int:
        nonlocal tries
        tries += 1
        await conn.execute("insert into t values ($1)", tries)
        if tries < 3:
            raise asyncpg.SerializationError("40001")
        return tries

    assert await empty.transact(work) == 3
    assert [row["n"] for row in await empty.fetch("select n from t")] == [3]


async def test_work_that_never_gets_through_fails_with_the_last_error(empty: Database) -> None:
    async def work(conn: Connection) -> None:
        raise asyncpg.DeadlockDetectedError("40P01")

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await empty.transact(work, tries=2)


async def test_other_errors_are_not_tried_again(empty: Database) -> None:
    tries = 0

    async def work(conn: Connection) -> None:
        nonlocal tries
        tries += 1
        await conn.execute("select 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await empty.transact(work)
    assert tries == 1


async def test_one_leads_at_a_time_and_the_next_takes_over(empty: Database) -> None:
    order: list[str] = []
    first_leads = asyncio.Event()
    may_end = asyncio.Event()

    async def first() -> None:
        async with empty.leader("jobs", poll_s=0.01):
            order.append("first begins")
            first_leads.set()
            await may_end.wait()
            order.append("first ends")

    async def second() -> None:
        await first_leads.wait()
        async with empty.leader("other", poll_s=0.01):
            order.append("other leads too")
        may_end.set()
        async with empty.leader("jobs", poll_s=0.01):
            order.append("second begins")

    await asyncio.gather(first(), second())
    assert order == ["first begins", "other leads too", "first ends", "second begins"]


async def test_a_leaders_lock_ends_with_its_connection(empty: Database) -> None:
    async with empty.leader("jobs") as connection:
        await empty.execute("select pg_terminate_backend($1)", connection.get_server_pid())
        async with asyncio.timeout(10), empty.leader("jobs", poll_s=0.01):
            assert connection.is_closed()


async def test_connections_count_time_in_utc(empty: Database) -> None:
    dedicated = await empty.dedicated()
    assert await dedicated.fetchval("show timezone") == await empty.fetchval("show timezone") == "UTC"
    await dedicated.close()


def test_a_statement_file_is_read_by_name() -> None:
    named = statements("freehold.ledger")
    assert named["time"] == "select at_s, provisional, opened_day from ledger.present"


async def test_a_server_that_is_serializable_by_default_is_used_read_committed(empty_database_url: str) -> None:
    outside = await asyncpg.connect(empty_database_url)
    name = await outside.fetchval("select current_database()")
    await outside.execute(f"alter database \"{name}\" set default_transaction_isolation to 'serializable'")
    await outside.close()
    database = await Database.connect(empty_database_url, max_size=1)
    kept = await database.dedicated()
    for _ in range(2):  # the second time on a connection that was given back
        assert await database.fetchval("show transaction_isolation") == "read committed"
    assert await kept.fetchval("show transaction_isolation") == "read committed"
    await kept.close()
    await database.close()


def test_a_random_id_is_a_uuid_as_others_make_them() -> None:
    drawn = [random_id() for _ in range(1_000)]
    assert len(set(drawn)) == 1_000
    assert {(one.version, one.variant) for one in drawn} == {(4, RFC_4122)}
    assert all(isinstance(one, UUID) and one == UUID(one.hex) and hash(one) == hash(UUID(one.hex)) for one in drawn)
