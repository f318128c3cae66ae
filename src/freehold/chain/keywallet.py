"""A wallet with a key of its own: it signs here, and sends raw transactions to any node. The key is never shown.

Transactions are of type 2 (EIP-1559), with the key's next nonce as the node counts it, mined ones and waiting ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import coincurve
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from freehold.chain.abi import from_hex
from freehold.chain.problems import RpcError, WalletRefused
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import Wallet

LEAST_TIP_WEI = 1
_TYPE = b"\x02"


@dataclass(frozen=True, slots=True)
class Fees:
    """What is offered for gas, wei each."""

    tip: int
    """To who mines."""
    most: int
    """At most, the tip included."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction that can be sent, by anyone."""

    raw: str
    tx_hash: str
    fees: Fees


class KeyWallet(Wallet):
    """A wallet whose secret key is in this process."""

    def __init__(self, rpc: Rpc, secret: bytes, *, name: str | None = None, timeout_s: float = 60.0) -> None:
        """`secret`: 32 bytes. `name`: how it is called in messages; its address when left out."""
        self._key = coincurve.PrivateKey(secret)
        address = address_of(self._key)
        super().__init__(rpc, name or address, address, timeout_s=timeout_s)
        self._chain_id: int | None = None

    def __repr__(self) -> str:
        return f"KeyWallet({self.address})"

    @property
    def option(self) -> str:
        return f"--wallet {self.name}"

    async def sign(self, message: str) -> str:
        """Made here."""
        body = message.encode()
        return self._signature(keccak(b"\x19Ethereum Signed Message:\n" + str(len(body)).encode() + body))

    async def sign_typed(self, data: Mapping[str, Any]) -> str:
        """Made here."""
        return self._signature(typed_digest(data))

    async def transmit(self, to: str | None, data: str, *, gas: int) -> str:
        """Signed here. Raises WalletRefused when the wallet can't pay the gas, RpcError."""
        signed = await self.signed(to, data, gas=gas)
        sent: str = await self.rpc.call("eth_sendRawTransaction", signed.raw)
        return sent

    async def replace(self, tx_hash: str, to: str, data: str) -> str | None:
        """Signed here, with the nonce of the one that waits. Raises as `transmit` does."""
        waiting = await self.rpc.call("eth_getTransactionByHash", tx_hash)
        if waiting is None or waiting.get("blockNumber") is not None:
            return None
        if to_checksum_address(waiting["from"]) != self.address:
            return None
        tip, most = (
            int(waiting.get(name) or waiting["gasPrice"], 16) for name in ("maxPriorityFeePerGas", "maxFeePerGas")
        )
        asked = await fees_of(self.rpc)
        base = (asked.most - asked.tip) // 2
        if min(tip, most - base) >= asked.tip:
            return None
        nonce, gas = (int(waiting[name], 16) for name in ("nonce", "gas"))
        fees = await fees_above(self.rpc, Fees(tip, most))
        signed = await self.signed(to, data, gas=gas, nonce=nonce, fees=fees)
        sent: str = await self.rpc.call("eth_sendRawTransaction", signed.raw)
        return sent

    async def signed(
        self, to: str | None, data: str, *, gas: int, nonce: int | None = None, fees: Fees | None = None
    ) -> Signed:
        """A transaction that isn't sent yet; `to` None creates a contract.

        It has the key's next nonce and what is usual now for gas, when they aren't given. Signing is deterministic: the
        same gives the same. Raises WalletRefused when the wallet can't pay the gas, RpcError.
        """
        if self._chain_id is None:
            self._chain_id = int(await self.rpc.call("eth_chainId"), 16)
        following, balance = await self.rpc.batch(
            [("eth_getTransactionCount", [self.address, "pending"]), ("eth_getBalance", [self.address, "latest"])]
        )
        fees = fees or await fees_of(self.rpc)
        if int(balance, 16) < gas * fees.most:
            raise WalletRefused(
                reason=f"{self.name} has {int(balance, 16)} wei and may need {gas * fees.most} for gas. "
                f"Send some of the chain's own coin to {self.address}."
            )
        raw = transaction(
            self._key,
            chain_id=self._chain_id,
            nonce=int(following, 16) if nonce is None else nonce,
            tip=fees.tip,
            most=fees.most,
            gas=gas,
            to=to,
            data=from_hex(data),
        )
        return Signed("0x" + raw.hex(), "0x" + keccak(raw).hex(), fees)

    def _signature(self, digest: bytes) -> str:
        raw = self._key.sign_recoverable(digest, hasher=None)
        return "0x" + (raw[:64] + bytes([raw[64] + 27])).hex()


async def fees_above(rpc: Rpc, before: Fees) -> Fees:
    """What replaces a transaction that waits in vain: what is usual now, and at least an eighth more, as nodes want it."""
    now = await fees_of(rpc)
    return Fees(max(now.tip, before.tip * 9 // 8 + 1), max(now.most, before.most * 9 // 8 + 1))


async def fees_of(rpc: Rpc) -> Fees:
    """What a transaction would offer now: the base fee may double until it is mined."""
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    try:
        tip = max(LEAST_TIP_WEI, int(await rpc.call("eth_maxPriorityFeePerGas"), 16))
    except RpcError:  # not every node knows it
        tip = LEAST_TIP_WEI
    return Fees(tip, 2 * int(block.get("baseFeePerGas") or "0x0", 16) + tip)


def address_of(key: coincurve.PrivateKey) -> str:
    """Checksummed: the last 20 bytes of the public key's hash."""
    return str(to_checksum_address(keccak(key.public_key.format(compressed=False)[1:])[12:]))


def transaction(
    key: coincurve.PrivateKey, *, chain_id: int, nonce: int, tip: int, most: int, gas: int, to: str | None, data: bytes
) -> bytes:
    """A signed transaction of type 2, without value (EIP-1559); `to` None creates a contract."""
    fields: list[Any] = [*map(_number, (chain_id, nonce, tip, most, gas)), from_hex(to or ""), b"", data, []]
    signed = key.sign_recoverable(keccak(_TYPE + rlp(fields)), hasher=None)
    r, s = (int.from_bytes(part, "big") for part in (signed[:32], signed[32:64]))
    return _TYPE + rlp([*fields, *map(_number, (signed[64], r, s))])


def rlp(item: Any) -> bytes:
    """Recursive-length prefix of bytes, or of a list of such (Yellow Paper, appendix B)."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _prefix(0x80, len(item)) + item
    body = b"".join(rlp(part) for part in item)
    return _prefix(0xC0, len(body)) + body


def typed_digest(data: Mapping[str, Any]) -> bytes:
    """What is signed of typed data (EIP-712)."""
    from freehold.chain.keystore import eth_account

    message = eth_account().messages.encode_typed_data(full_message=dict(data))
    return keccak(b"\x19" + message.version + message.header + message.body)


def _prefix(base: int, length: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = _number(length)
    return bytes([base + 55 + len(size)]) + size


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
