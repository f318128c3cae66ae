"""A shop per test, with one worker."""

from collections.abc import AsyncIterator

import pytest
from tests.x402.shop import Shop, opened, worker

from freehold.db import Database


@pytest.fixture
async def empty_shop(database: Database, database_url: str) -> AsyncIterator[Shop]:
    """Without a worker."""
    async with opened(database, database_url) as shop:
        yield shop


@pytest.fixture
async def shop(empty_shop: Shop) -> AsyncIterator[Shop]:
    async with worker(empty_shop):
        yield empty_shop
