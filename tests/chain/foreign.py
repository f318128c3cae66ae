"""A chain that isn't the dev chain: another id, no unlocked accounts; and wallets with keys of their own, with coin for gas."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eth_account import Account as Wallets
from tests.chain.lab import USDC, Anvil

from freehold.chain.abi import Contract
from freehold.chain.contracts import ERC20
from freehold.chain.deploy import Plan, plan_usdc
from freehold.chain.keywallet import KeyWallet
from freehold.chain.rpc import Rpc

CHAIN_ID = 8_454
CONFIRMATIONS = 12
COIN = 10**20
PASSWORD = "pass"
USD = 10**6


@asynccontextmanager
async def mining(anvil: Anvil, *, every_s: float = 0.02) -> AsyncIterator[None]:
    """Blocks come by themselves, meanwhile."""

    over = asyncio.Event()

    async def mine() -> None:
        while not over.is_set():
            await anvil.rpc.call("evm_mine")
            await asyncio.sleep(every_s)

    miner = asyncio.create_task(mine())
    try:
        yield
    finally:
        over.set()  # not cancelled: the last block would be mined at any later moment
        await asyncio.wait([miner])


async def mined(anvil: Anvil, tx_hash: str) -> None:
    """Wait for a transaction: also a chain that mines each as it comes takes its time."""
    async with asyncio.timeout(120):
        while await anvil.rpc.call("eth_getTransactionReceipt", tx_hash) is None:  # noqa: ASYNC110 - asked over HTTP
            await asyncio.sleep(0.02)


class Key(KeyWallet):
    """A wallet that tells its key, to tests."""

    def __init__(self, rpc: Rpc, secret: bytes, *, name: str | None = None) -> None:
        super().__init__(rpc, secret, name=name)
        self._secret = secret

    def secret(self) -> bytes:
        return self._secret


async def funded(anvil: Anvil, *, name: str | None = None) -> Key:
    """A new key with coin."""
    wallet = Key(anvil.rpc, bytes(Wallets.create().key), name=name)
    await anvil.rpc.call("anvil_setBalance", wallet.address, hex(COIN))
    return wallet


def keep(path: Path, wallet: Key) -> Path:
    """Its keystore, with the password PASSWORD and little work to open it."""
    kept = Wallets.encrypt(wallet.secret(), PASSWORD, kdf="pbkdf2", iterations=1)
    path.write_text(json.dumps(kept), "utf-8")
    return path


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
