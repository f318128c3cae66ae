"""A chain per test that asks for one."""

from collections.abc import AsyncIterator

import pytest
from tests.chain.lab import START_S, Anvil, Emitters, emitters


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A fresh chain that mines only when told to."""
    started = Anvil("--no-mining", "--timestamp", str(START_S))
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def emitter(anvil: Anvil) -> Emitters:
    return await emitters(anvil)
