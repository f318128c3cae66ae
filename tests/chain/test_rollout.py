"""A deployment on a chain of one's own: carried out step by step, gone on with after any failure, and checked."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.chain.foreign import CHAIN_ID, CONFIRMATIONS, funded, mining, put_usdc
from tests.chain.lab import START_S, Anvil

from freehold.chain import audit, rollout
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import LEAST_DELAY_S, Parameters
from freehold.chain.journal import Journal
from freehold.chain.keywallet import KeyWallet
from freehold.chain.model import Deployment
from freehold.chain.rollout import Outcome, Rollout
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read

STEPS = 10
"""Five contracts, scheduling, HOLD to its holder, two rights renounced, executing."""


@dataclass
class Site:
    """A chain, its USDC, and who deploys."""

    anvil: Anvil
    deployer: KeyWallet
    parameters: Parameters
    folder: Path
    said: list[str] = field(default_factory=list)

    async def run(
        self, rpc: Rpc | None = None, *, patience_s: float = 60.0, name: str = "deployment.journal"
    ) -> Outcome:
        """One run of the deployment, on the journal that there may be."""
        wallet = self.deployer if rpc is None else self.with_rpc(rpc)
        with Journal.open(self.folder / name) as journal:
            if journal.begun is None:
                await rollout.begin(wallet.rpc, journal, self.parameters, wallet.address)
            return await Rollout(wallet, journal, package=None, tell=self.said.append, patience_s=patience_s).run()

    def with_rpc(self, rpc: Rpc) -> KeyWallet:
        return KeyWallet(rpc, self.deployer._key.secret, name="deployer")

    async def audit(self, deployment: Deployment, *, waiting: bool = False, fresh: bool = True) -> list[audit.Finding]:
        with Journal.open(self.folder / "deployment.journal") as journal:
            return await audit.audit(self.anvil.rpc, deployment, journal.begun, fresh=fresh, waiting=waiting)

    async def sent(self) -> int:
        """Transactions of the deployer that were mined."""
        return int(await self.anvil.rpc.call("eth_getTransactionCount", self.deployer.address, "latest"), 16)

    async def delay_over(self) -> None:
        await self.anvil.rpc.call("evm_increaseTime", LEAST_DELAY_S + 1)
        await self.anvil.mine()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    anvil = Anvil("--chain-id", str(CHAIN_ID), "--accounts", "0", "--timestamp", str(START_S))
    await anvil.start()
    _, usdc = await put_usdc(anvil)
    deployer = await funded(anvil, name="deployer")
    operator, governor = (await funded(anvil)).address, (await funded(anvil)).address
    parameters = Parameters(
        operator=operator,
        url="https://gateway.example",
        receipt_signer=(await funded(anvil)).address,
        publisher=operator,
        payee=operator,
        treasury=(await funded(anvil)).address,
        usdc=usdc,
        governors=(governor,),
        holder=(await funded(anvil)).address,
        delay_s=LEAST_DELAY_S,
        confirmations=CONFIRMATIONS,
        names=("Acre", "ACRE", "Tokens of Compute", "COMP"),
    )
    yield Site(anvil, deployer, parameters, tmp_path)
    await anvil.stop()


def wrong(findings: list[audit.Finding]) -> list[str]:
    return [one.what for one in findings if not one.right]


async def test_it_deploys_in_two_runs_with_the_timelocks_delay_between_and_keeps_no_right(site: Site) -> None:
    async with mining(site.anvil):
        first = await site.run()
        assert first.effective_at_s is not None and first.sent == STEPS - 1
        assert wrong(await site.audit(first.deployment, waiting=True)) == []
        again = await site.run()
        assert (again.sent, again.effective_at_s) == (0, first.effective_at_s)
        await site.delay_over()
        second = await site.run()
        assert (second.sent, second.effective_at_s, second.deployment) == (1, None, first.deployment)
        assert wrong(await site.audit(second.deployment)) == []
        assert (await site.run()).sent == 0
    assert await site.sent() == STEPS
    contracts = Contracts.of(second.deployment)
    assert await read(site.anvil.rpc, contracts.hold, "symbol") == "ACRE"
    assert await read(site.anvil.rpc, contracts.diem, "name") == "Tokens of Compute"
    assert await read(site.anvil.rpc, contracts.hold, "balanceOf", site.parameters.holder) == site.parameters.genesis
    assert (await read(site.anvil.rpc, contracts.vault, "operatorOf", site.parameters.operator))[
        0
    ] == site.parameters.url
