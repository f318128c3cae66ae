"""The embedded PostgreSQL."""

from freehold.db import Database


async def test_a_fresh_database_answers(database: Database) -> None:
    assert await database.fetchval("select count(*) from schema_migrations") >= 0


async def test_each_test_has_a_database_of_its_own(database: Database) -> None:
    await database.execute("create table mark(x int)")
    assert await database.fetchval("select count(*) from mark") == 0
