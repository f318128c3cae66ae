"""Signatures of wallets that are contracts (ERC-1271): the contract itself says whether one is good."""

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from freehold.chain.problems import RpcError
from freehold.chain.rpc import Rpc

MAGIC = bytes.fromhex("1626ba7e")
"""What `isValidSignature` returns for a good one; also its selector."""

WRAPPED = bytes.fromhex("6492") * 16
"""The end of a signature that also says how its wallet would be deployed (ERC-6492)."""

MOST_GAS = 5_000_000
"""What a contract may spend on looking at a signature."""


class ContractSignatures:
    """Asks the contracts, at the newest block."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def good(self, address: str, digest: bytes, signature: bytes) -> bool | None:
        """Whether the contract at `address` takes the signature of `digest`; None when there is no contract.

        Raises NodeUnavailable. A contract that reverts, or answers anything but the magic value, doesn't take it.
        """
        if await self._rpc.call("eth_getCode", address, "latest") in ("0x", None):
            return None
        data = keccak(text="isValidSignature(bytes32,bytes)")[:4]
        data += encode(["bytes32", "bytes"], [digest, unwrapped(signature)])
        call = {"to": address, "data": "0x" + data.hex(), "gas": hex(MOST_GAS)}
        try:
            answer = bytes.fromhex(str(await self._rpc.call("eth_call", call, "latest")).removeprefix("0x"))
        except (RpcError, ValueError):
            return False
        return len(answer) >= 32 and answer[:32] == MAGIC + bytes(28)


def unwrapped(signature: bytes) -> bytes:
    """The signature itself, of one that is wrapped for a wallet that might not be deployed."""
    if not signature.endswith(WRAPPED):
        return signature
    try:
        return bytes(decode(["address", "bytes", "bytes"], signature[: -len(WRAPPED)])[2])
    except (DecodingError, OverflowError):
        return signature
