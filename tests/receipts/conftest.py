from collections.abc import AsyncIterator

import pytest
from tests.receipts.lab import FIRST, Till, receipts_of

from freehold.db import Database
from freehold.ledger.ledger import Ledger


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    """08:00 of the first day."""
    async with Ledger(database) as ledger:
        till = Till(database, ledger, receipts_of(database))
        await till.until(FIRST, seconds=8 * 3_600)
        yield till
