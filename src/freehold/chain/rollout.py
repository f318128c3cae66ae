"""Carries a deployment out on any chain, with a key of one's own: each transaction mined before the next is sent.

Whatever stops it, the next run goes on: a transaction that was sent and not seen is found by its hash, a contract by the
address that follows from its nonce, and what no node knows of is sent again with the same nonce.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from freehold.chain.abi import artifact, template
from freehold.chain.deploy import Parameters, Plan, Step, Whole, planned
from freehold.chain.journal import Begun, Entry, Journal
from freehold.chain.keywallet import Fees, KeyWallet, fees_above, fees_of
from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken, NotMined, RpcError
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read, reverted

PATIENCE_S = 600.0
"""How long a transaction may take to be mined, and the chain to make a block."""
LOOK_EVERY_S = 0.2
LOOKS = 25
"""How often a used nonce's transaction is looked for, before it is somebody else's: a node may lag. And how often one that
no node knows of, before it is sent once more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a deployment has come."""

    deployment: Deployment
    settings: bytes | None
    """By what the timelock knows the first settings; None beside contracts that stood already."""
    effective_at_s: int | None
    """From when on they can be executed; None when they are in force, or there are none."""
    sent: int
    """Steps that this run has got mined."""


class Rollout:
    """One run. `tell` is told of each step; `package` is where USDC comes from on a dev chain that lacks it."""

    def __init__(
        self,
        wallet: KeyWallet,
        journal: Journal,
        *,
        package: Path | None,
        tell: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._wallet = wallet
        self._rpc = wallet.rpc
        self._journal = journal
        self._package = package
        self._tell = tell
        self._patience_s = patience_s
        self._look_every_s = look_every_s
        self._mined = 0

    async def run(self) -> Outcome:
        """Raises Reverted, NotMined, DeploymentBroken, WalletRefused, NodeUnavailable; run it again then."""
        begun = self._journal.begun
        assert begun is not None  # noqa: S101 - begun before
        await require_same(self._rpc, begun)
        while True:
            at_s = await self._carry_out(begun)
            await self._confirmed(begun.parameters.confirmations)
            whole = await self._whole(begun)
            if not await self._forget_lost(whole):
                break
        parameters = begun.parameters
        deployment = Deployment(
            begun.chain_id,
            whole.contracts,
            parameters.operator,
            begun.from_block if parameters.beside is None else parameters.beside.from_block,
            parameters.confirmations,
        )
        return Outcome(deployment, whole.settings, at_s, self._mined)

    async def _carry_out(self, begun: Begun) -> int | None:
        """Every step that can be done now; from when on the last one can be, where it must wait."""
        while True:
            whole = await self._whole(begun)
            await self._forget_lost(whole)
            at = self._journal.open_step()
            if at == len(whole.steps):
                return None
            if whole.settings is not None and at == len(whole.steps) - 1:
                stamp = await self._stamp(whole)
                if stamp == 1:
                    return None
                if stamp > await self._now_s():
                    return stamp
            await self._settle(at, whole.steps[at], len(whole.steps))

    async def _whole(self, begun: Begun) -> Whole:
        waiting = await self._count("pending")
        nonce = max([waiting, *(taken + 1 for taken in self._journal.nonces())])
        return planned(begun.parameters, Plan(begun.deployer, nonce, self._journal.nonces()), self._package)

    async def _settle(self, at: int, step: Step, of: int) -> None:
        """Get a step mined, whatever was done of it before; or give its nonce up, for another one."""
        looks = silent = 0
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    entry = self._journal.entries[at] if at < len(self._journal.entries) else None
                    if entry is None:
                        self._tell(f"{at + 1} of {of}: {step.what} …")
                        await self._send(at, step, await fees_of(self._rpc))
                    elif (receipt := await self._receipt(entry)) is not None:
                        await self._see(at, step, receipt)
                        return
                    elif await self._count("latest") > step.nonce:
                        if step.creates is not None and await self._has_code(step.creates):
                            self._journal.mined(at, "", await self._head())
                            return
                        looks += 1
                        if looks >= LOOKS:
                            self._give_up(at)
                            return
                    elif await self._base_fee() > entry.fees.most:
                        self._tell(f"{at + 1} of {of}: {step.what}, again for more gas …")
                        await self._send(at, step, await fees_above(self._rpc, entry.fees))
                    elif not await self._known(entry.sent[-1]):
                        if silent % LOOKS == 0:
                            self._tell(f"{at + 1} of {of}: {step.what}, sent again as it was …")
                            await self._send_again(at, step, entry)
                        silent += 1
                    await asyncio.sleep(self._look_every_s)  # a node offers nothing to wait for over HTTP
        except TimeoutError:
            sent = self._journal.entries[at].sent[-1] if at < len(self._journal.entries) else "nothing yet"
            raise NotMined(what=_named(step), tx_hash=sent, waited_s=f"{self._patience_s:g}") from None

    async def _send(self, at: int, step: Step, fees: Fees) -> None:
        """Sign it, note it, and send it: in this order."""
        call = {"from": self._wallet.address, "data": step.data, **({"to": step.to} if step.to else {})}
        try:
            gas = int(await self._rpc.call("eth_estimateGas", call), 16) * 6 // 5
        except RpcError as error:
            raise reverted(_named(step), error) from None
        signed = await self._wallet.signed(step.to, step.data, gas=gas, nonce=step.nonce, fees=fees)
        self._journal.sending(at, step.what, step.nonce, signed.tx_hash, gas, fees)
        try:
            await self._rpc.call("eth_sendRawTransaction", signed.raw)
        except RpcError as error:
            # "already known" and "nonce too low" are no failures: what is true of the nonce is seen next.
            if not await self._known(signed.tx_hash) and await self._count("latest") <= step.nonce:
                raise reverted(_named(step), error) from None

    async def _send_again(self, at: int, step: Step, entry: Entry) -> None:
        """The very same transaction: a node that has it all the same only says so."""
        signed = await self._wallet.signed(step.to, step.data, gas=entry.gas, nonce=entry.nonce, fees=entry.fees)
        if signed.tx_hash not in entry.sent:
            self._journal.sending(at, step.what, step.nonce, signed.tx_hash, entry.gas, entry.fees)
        with contextlib.suppress(RpcError):  # what is true of the nonce is seen next
            await self._rpc.call("eth_sendRawTransaction", signed.raw)

    async def _see(self, at: int, step: Step, receipt: Mapping[str, Any]) -> None:
        tx_hash, block = str(receipt["transactionHash"]), int(receipt["blockNumber"], 16)
        if int(receipt["status"], 16) != 1:
            self._give_up(at)
            raise DeploymentBroken(
                reason=f"{_named(step)} failed on the chain (transaction {tx_hash}). What was done before it stays; run "
                "this again to go on from there."
            )
        self._journal.mined(at, tx_hash, block)
        self._mined += 1
        self._tell(f"    block {block}, {int(receipt['gasUsed'], 16):,} gas, transaction {tx_hash}")

    def _give_up(self, at: int) -> None:
        if at != len(self._journal.entries) - 1:
            raise DeploymentBroken(
                reason=f"Transaction {self._journal.entries[at].nonce} of {self._wallet.address} isn't that of "
                f"{self._journal.path} any more, and others that need it were mined: this deployment can't be gone on "
                "with. Begin anew with another --out."
            )
        self._journal.given_up(at)

    async def _confirmed(self, confirmations: int) -> None:
        """Wait until enough blocks stand on all of it."""
        newest = max((entry.block or 0 for entry in self._journal.entries), default=0)
        head = await self._head()
        if head < newest + confirmations:
            self._tell(f"Waiting for {confirmations} blocks on block {newest} …")
        while head < newest + confirmations:
            head = await self._next_block(head)

    async def _forget_lost(self, whole: Whole) -> bool:
        """Note what was mined and isn't there any more, by a reorganisation; whether there is such."""
        lost = False
        for at, entry in enumerate(self._journal.entries):
            if entry.block is None:
                continue
            created = whole.steps[at].creates
            there = (
                await self._has_code(created) if not entry.mined and created else await self._receipt(entry) is not None
            )
            if not there:
                self._journal.lost(at)
                lost = True
        return lost

    async def _next_block(self, head: int) -> int:
        """Wait for one. Raises DeploymentBroken."""
        try:
            async with asyncio.timeout(self._patience_s):
                while (now := await self._head()) <= head:  # noqa: ASYNC110 - a node offers nothing to wait for
                    await asyncio.sleep(self._look_every_s)
        except TimeoutError:
            raise DeploymentBroken(
                reason=f"The chain makes no block after {head}. All is sent; run this again to see it confirmed."
            ) from None
        return now

    async def _receipt(self, entry: Entry) -> Mapping[str, Any] | None:
        for tx_hash in reversed(entry.sent):
            receipt: Mapping[str, Any] | None = await self._rpc.call("eth_getTransactionReceipt", tx_hash)
            if receipt is not None:
                return receipt
        return None

    async def _base_fee(self) -> int:
        block = await self._rpc.call("eth_getBlockByNumber", "latest", False)
        return int(block.get("baseFeePerGas") or "0x0", 16)

    async def _known(self, tx_hash: str) -> bool:
        return await self._rpc.call("eth_getTransactionByHash", tx_hash) is not None

    async def _stamp(self, whole: Whole) -> int:
        """When the settings can be executed; 1 when they were. Raises DeploymentBroken when they were cancelled."""
        timelock = template("FreeholdTimelock").at(whole.contracts["timelock"])
        stamp = int(await read(self._rpc, timelock, "getTimestamp", whole.settings))
        if stamp == 0:
            raise DeploymentBroken(
                reason="A governor has cancelled the first settings at the timelock; propose others with "
                "`freehold governance propose`."
            )
        return stamp

    async def _has_code(self, address: str) -> bool:
        return await self._rpc.call("eth_getCode", address, "latest") not in ("0x", None)

    async def _count(self, tag: str) -> int:
        return int(await self._rpc.call("eth_getTransactionCount", self._wallet.address, tag), 16)

    async def _head(self) -> int:
        return int(await self._rpc.call("eth_blockNumber"), 16)

    async def _now_s(self) -> int:
        return int((await self._rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)


async def begin(rpc: Rpc, journal: Journal, parameters: Parameters, deployer: str) -> Begun:
    """Write down what is begun, before anything is sent."""
    chain_id, first, head = await rpc.batch(
        [("eth_chainId", []), ("eth_getBlockByNumber", ["0x0", False]), ("eth_blockNumber", [])]
    )
    begun = Begun(parameters, int(chain_id, 16), first["hash"], deployer, int(head, 16) + 1, code_digest())
    journal.begin(begun)
    return begun


def code_digest() -> str:
    """Of what is deployed: no deployment is gone on with by a version that has other contracts."""
    names = ("FreeholdTimelock", "Staking", "CapacityVault", "Prepaid", "EpochBook")
    return keccak(text="".join(artifact(name)["bytecode"] for name in names)).hex()


async def require_same(rpc: Rpc, begun: Begun) -> None:
    """Raises DeploymentBroken on another chain, or with other contracts, than the deployment was begun with."""
    if begun.code != code_digest():
        raise DeploymentBroken(
            reason="This deployment was begun by another version of Freehold, whose contracts differ: go on with that one, "
            "or begin anew with another --out."
        )
    chain_id, first = await rpc.batch([("eth_chainId", []), ("eth_getBlockByNumber", ["0x0", False])])
    if (int(chain_id, 16), first["hash"]) != (begun.chain_id, begun.genesis):
        raise DeploymentBroken(
            reason=f"The node at {rpc.node} is on chain {int(chain_id, 16)}, and this deployment was begun on chain "
            f"{begun.chain_id} (or on another one of that number): give its --rpc, or name another --out."
        )


def _named(step: Step) -> str:
    return step.what[0].upper() + step.what[1:]
