"""A chain that isn't the dev chain: another id, no unlocked accounts; and wallets with keys of their own, with coin for gas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from eth_account import Account as Wallets
from tests.chain.lab import USDC, Anvil

from freehold.chain.abi import Contract
from freehold.chain.contracts import ERC20
from freehold.chain.deploy import Plan, plan_usdc
from freehold.chain.keywallet import KeyWallet

CHAIN_ID = 8_454
CONFIRMATIONS = 12
COIN = 10**20
USD = 10**6


@asynccontextmanager
async def mining(anvil: Anvil, *, every_s: float = 0.02) -> AsyncIterator[None]:
    """Blocks come by themselves, meanwhile."""

    async def mine() -> None:
        while True:
            await anvil.rpc.call("evm_mine")
            await asyncio.sleep(every_s)

    miner = asyncio.create_task(mine())
    try:
        yield
    finally:
        miner.cancel()
        with suppress(asyncio.CancelledError):
            await miner


async def funded(anvil: Anvil, *, name: str | None = None) -> KeyWallet:
    """A new key with coin."""
    wallet = KeyWallet(anvil.rpc, bytes(Wallets.create().key), name=name)
    await anvil.rpc.call("anvil_setBalance", wallet.address, hex(COIN))
    return wallet


async def put_usdc(anvil: Anvil) -> tuple[KeyWallet, str]:
    """The chain's USDC and who mints it."""
    issuer = await funded(anvil, name="issuer")
    plan = Plan(issuer.address, 0)
    usdc = plan_usdc(plan, USDC, issuer.address, admin="0x" + "01" * 20)
    for step in plan.steps:
        sent = await issuer.transmit(step.to, step.data, gas=8_000_000)
        receipt = await issuer._mined(sent, step.what)
        assert int(receipt["status"], 16) == 1, step.what
    return issuer, usdc


async def give_usdc(issuer: KeyWallet, usdc: str, to: str, amount: int) -> None:
    await issuer.send(Contract(ERC20, address=usdc, name="USDC"), "mint", to, amount, what="minting USDC")
