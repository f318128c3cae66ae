"""Wallets: what each does in the same way, and those of the dev chain, which the node holds unlocked, by name.

No private key of a dev wallet is ever in this process; `keywallet.py` has wallets with a key of their own.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from eth_utils.address import to_checksum_address

from freehold.chain.abi import Contract, Log, read_log
from freehold.chain.contracts import why
from freehold.chain.model import DEV_CHAIN_ID
from freehold.chain.problems import NotMined, Reverted, RpcError, WalletRefused
from freehold.chain.rpc import Rpc

NAMES = ("deployer", "operator", "alice", "bob", "carol", "dave", "erin", "frank")

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction that succeeded."""

    tx_hash: str
    block_number: int
    at_s: int
    """The block's time."""
    logs: tuple[Log, ...]


async def require_dev_chain(rpc: Rpc) -> None:
    """Raises WalletRefused on any chain but the dev chain."""
    chain_id = int(await rpc.call("eth_chainId"), 16)
    if chain_id != DEV_CHAIN_ID:
        raise WalletRefused(
            reason=f"The node at {rpc.node} is on chain {chain_id}, and wallets by name exist on the dev chain only "
            f"(chain {DEV_CHAIN_ID}). Use a wallet of your own there."
        )


async def addresses(rpc: Rpc) -> dict[str, str]:
    """The named wallets' addresses. Raises WalletRefused off the dev chain."""
    await require_dev_chain(rpc)
    accounts = await rpc.call("eth_accounts")
    return {name: to_checksum_address(account) for name, account in zip(NAMES, accounts, strict=False)}


class Wallet(ABC):
    """An address that can sign and send."""

    def __init__(self, rpc: Rpc, name: str, address: str, *, timeout_s: float = 60.0) -> None:
        """`timeout_s`: how long `send` waits for a transaction to be mined."""
        self.rpc = rpc
        self.name = name
        self.address = address
        self.timeout_s = timeout_s

    @property
    def option(self) -> str:
        """How the command line is told of this wallet."""
        return f"--from {self.name}"

    @abstractmethod
    async def sign(self, message: str) -> str:
        """EIP-191 signature of a text (personal_sign), as hex."""

    @abstractmethod
    async def sign_typed(self, data: Mapping[str, Any]) -> str:
        """EIP-712 signature of typed data, as hex."""

    @abstractmethod
    async def transmit(self, to: str | None, data: str, *, gas: int) -> str:
        """Send a transaction with at most so much gas, and don't wait for it; its hash. `to` None creates a contract.

        Raises RpcError.
        """

    async def replace(self, tx_hash: str, to: str, data: str) -> str | None:
        """Send this in place of a transaction that waits because it offers less than the chain asks; its hash.

        It takes that one's nonce and gas, and offers more for it. None, and nothing is sent, when that one doesn't wait, isn't this
        wallet's, or offers what a new one would. Raises RpcError.
        """
        return None  # a node that signs by itself knows what it asks

    async def read(self, contract: Contract, function: str, *arguments: Any, what: str | None = None) -> Any:
        """The result of a view function, as this wallet. `what` names it in a refusal."""
        return await read(self.rpc, contract, function, *arguments, sender=self.address, what=what)

    async def send(self, contract: Contract, function: str, *arguments: Any, what: str) -> Receipt:
        """Try a call, send it, and wait until it is mined. `what` names it in a refusal: "Staking 5 HOLD".

        Raises Reverted in words, NotMined, NodeUnavailable.
        """
        call = {"from": self.address, "to": contract.address, "data": contract.call(function, *arguments)}
        try:
            gas = int(await self.rpc.call("eth_estimateGas", call), 16)
            sent = await self.transmit(call["to"], call["data"], gas=gas * 13 // 10)
        except RpcError as error:
            raise reverted(what, error) from None
        receipt = await self._mined(sent, what)
        if int(receipt["status"], 16) != 1:
            raise await self._why_failed(call, receipt, what)
        block = await self.rpc.call("eth_getBlockByNumber", receipt["blockNumber"], False)
        return Receipt(
            tx_hash=sent,
            block_number=int(receipt["blockNumber"], 16),
            at_s=int(block["timestamp"], 16),
            logs=tuple(read_log(raw) for raw in receipt["logs"]),
        )

    async def _mined(self, tx_hash: str, what: str) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    receipt: Mapping[str, Any] | None = await self.rpc.call("eth_getTransactionReceipt", tx_hash)
                    if receipt is not None:
                        return receipt
                    await asyncio.sleep(_LOOK_EVERY_S)  # a node offers nothing to wait for over HTTP
        except TimeoutError:
            raise NotMined(what=what, tx_hash=tx_hash, waited_s=f"{self.timeout_s:g}") from None

    async def _why_failed(self, call: Mapping[str, str], receipt: Mapping[str, Any], what: str) -> Reverted | RpcError:
        """A transaction that its trial had let through: try it once more on the block that it failed in."""
        try:
            await self.rpc.call("eth_call", call, receipt["blockNumber"])
        except RpcError as error:
            return reverted(what, error)
        return Reverted(what=what, reason="the chain's state changed while it was on its way; try again")


class DevWallet(Wallet):
    """One named wallet of the dev chain; open it with `await DevWallet.open(rpc, "alice")`."""

    @classmethod
    async def open(cls, rpc: Rpc, name: str) -> Self:
        """Raises WalletRefused off the dev chain, and for a name that no wallet has."""
        known = await addresses(rpc)
        if name not in known:
            raise WalletRefused(reason=f"There is no dev wallet {name!r}. There are {', '.join(known)}.")
        return cls(rpc, name, known[name])

    async def sign(self, message: str) -> str:
        """The node makes it."""
        signature: str = await self.rpc.call("personal_sign", "0x" + message.encode().hex(), self.address)
        return signature

    async def sign_typed(self, data: Mapping[str, Any]) -> str:
        """The node makes it."""
        signature: str = await self.rpc.call("eth_signTypedData_v4", self.address, data)
        return signature

    async def transmit(self, to: str | None, data: str, *, gas: int) -> str:
        """The node signs."""
        call = {"from": self.address, "data": data, "gas": hex(gas), **({"to": to} if to else {})}
        sent: str = await self.rpc.call("eth_sendTransaction", call)
        return sent


async def read(
    rpc: Rpc,
    contract: Contract,
    function: str,
    *arguments: Any,
    sender: str | None = None,
    what: str | None = None,
    at: str = "latest",
) -> Any:
    """The result of a view function at block `at`. Raises Reverted in words."""
    call = {"to": contract.address, "data": contract.call(function, *arguments)}
    if sender is not None:
        call["from"] = sender
    try:
        return contract.result(function, await rpc.call("eth_call", call, at))
    except RpcError as error:
        raise reverted(what or f"Reading {function}", error) from None


def reverted(what: str, error: RpcError) -> Reverted | RpcError:
    """The node's answer as the contract's refusal, if that is what it is."""
    if error.data is None and "revert" not in error.reason.lower():
        return error
    name, reason = why(error.data, error.reason)
    return Reverted(what=what, reason=reason, error=name)
