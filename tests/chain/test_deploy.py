"""Deploying at once on a chain where somebody else mines too."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.chain.lab import USDC, Anvil

from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read


class LateReceipts(Rpc):
    """A node whose receipts come one answer later than the state of their block."""

    withheld = 0

    async def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        answers = await super().batch(calls)
        if calls[-1][0] == "eth_getTransactionReceipt" and self.withheld < 2:
            self.withheld += 1
            return [*answers[:-1], None]
        return answers


@pytest.fixture
async def late() -> Any:
    anvil = Anvil("--no-mining")
    await anvil.start()
    try:
        async with LateReceipts(f"http://127.0.0.1:{anvil.port}") as rpc:
            yield rpc
    finally:
        await anvil.stop()


async def test_a_receipt_that_comes_after_its_blocks_state_is_waited_for(late: LateReceipts) -> None:
    deployment = await deploy_dev(late, USDC)
    assert late.withheld == 2
    assert await read(late, Contracts.of(deployment).diem, "symbol") == "DIEM"
