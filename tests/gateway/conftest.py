"""A worker for each test."""

from collections.abc import AsyncIterator

import pytest
from tests.gateway.house import House, prepare, worker

from freehold.db import Database


@pytest.fixture
async def prepared(database: Database) -> Database:
    """A database with ledger time and the scripted models' prices."""
    await prepare(database)
    return database


@pytest.fixture
async def house(prepared: Database) -> AsyncIterator[House]:
    async with worker(prepared) as house:
        yield house
