"""A dev chain with the protocols for tests of lending: made once per module, and as it was before each test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chain.defi.lab import FOLDER, fetched
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain.abi import Contract
from freehold.chain.contracts import Contracts
from freehold.chain.defi import packages
from freehold.chain.defi.deploy import FEE, deploy_defi
from freehold.chain.defi.model import Defi
from freehold.chain.deploy import deploy_dev
from freehold.chain.dev import fund
from freehold.chain.model import Deployment
from freehold.chain.wallet import DevWallet, read

ONE, USD, ALL = 10**18, 10**6, 2**256 - 1


class Town:
    """One chain, its contracts and protocols, and what its people do."""

    def __init__(self, anvil: Anvil, deployment: Deployment, defi: Defi) -> None:
        self.anvil, self.rpc, self.deployment, self.defi = anvil, anvil.rpc, deployment, defi
        self.contracts = Contracts.of(deployment)

    async def wait(self, seconds: int) -> None:
        await self.rpc.call("evm_increaseTime", seconds)
        await self.rpc.call("evm_mine")

    async def holder(self, name: str, *, diem: int = 0, usdc: int = 0) -> DevWallet:
        """A wallet with so much of each, in whole tokens."""
        await fund(self.rpc, self.deployment, name, hold=150 * diem * ONE, usdc=usdc * USD)
        wallet = await DevWallet.open(self.rpc, name)
        if diem:
            staking = self.contracts.staking
            await wallet.send(self.contracts.hold, "approve", staking.address, ALL, what="Approving")
            await wallet.send(staking, "stake", wallet.address, 150 * diem * ONE, what="Staking")
            await wallet.send(staking, "mintExact", diem * ONE, ALL, what="Minting")
        return wallet

    async def balance(self, token: Contract, who: DevWallet | str) -> int:
        found: int = await read(self.rpc, token, "balanceOf", who if isinstance(who, str) else who.address)
        return found

    async def crash(self, wallet: DevWallet, diem: int) -> None:
        """Sell so many whole DIEM, and let the half hour pass that the oracle's mean is over."""
        abi = packages.v3(FOLDER, "v3-periphery", "SwapRouter")["abi"]
        router = Contract(abi, address=self.defi.router, name="SwapRouter")
        diem_token, usdc = self.contracts.diem, self.contracts.usdc
        await wallet.send(diem_token, "approve", router.address, diem * ONE, what="Approving")
        order = (diem_token.address, usdc.address, FEE, wallet.address, 2**40, diem * ONE, 0, 0)
        await wallet.send(router, "exactInputSingle", order, what="Selling")
        await self.wait(1_801)


@asynccontextmanager
async def town() -> AsyncIterator[Town]:
    folder = await fetched()
    anvil = Anvil("--timestamp", str(START_S))
    await anvil.start()
    try:
        deployment = await deploy_dev(anvil.rpc, USDC)
        yield Town(anvil, deployment, await deploy_defi(anvil.rpc, deployment, folder, say=print))
    finally:
        await anvil.stop()


@asynccontextmanager
async def undone(anvil: Anvil) -> AsyncIterator[None]:
    """What is done inside has never been, afterwards."""
    kept = await anvil.rpc.call("evm_snapshot")
    try:
        yield
    finally:
        await anvil.rpc.call("evm_revert", kept)
