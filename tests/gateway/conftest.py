"""A worker for each module, and one of its own for a test that changes what others see."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.gateway.house import House, prepare, worker

from freehold.db import Database


@pytest.fixture
async def prepared(database: Database) -> Database:
    """A fresh database with ledger time and the scripted models' prices."""
    await prepare(database)
    return database


@pytest.fixture
async def own_house(prepared: Database) -> AsyncIterator[House]:
    """A worker on a database of its own."""
    async with worker(prepared) as house:
        yield house


@pytest.fixture(scope="module")
async def shared_house(
    postgres_url: str, migrated_template: str, request: pytest.FixtureRequest
) -> AsyncIterator[House]:
    name = request.module.__name__.replace(".", "_")
    server = await asyncpg.connect(postgres_url)
    try:
        await server.execute(f'create database "{name}" template "{migrated_template}" strategy file_copy')
        database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}")), max_size=20)
        try:
            await prepare(database)
            async with worker(database) as house:
                yield house
        finally:
            await database.close()
        await server.execute(f'drop database "{name}" with (force)')
    finally:
        await server.close()


@pytest.fixture
def house(shared_house: House) -> House:
    """The module's worker; accounts are each test's own, what its upstream has seen is not."""
    shared_house.scripted.gate = None
    shared_house.scripted.hanging = asyncio.Event()
    shared_house.scripted.seen.clear()
    shared_house.app.left.clear()
    return shared_house
