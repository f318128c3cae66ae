"""Merkle trees over receipts, written anew from the format: leaves hashed twice, pairs sorted, an odd node promoted."""

from collections.abc import Sequence

from eth_utils import keccak

EMPTY = bytes(32)


def leaf_of(receipt_hash: bytes) -> bytes:
    return keccak(keccak(receipt_hash))


def levels(receipts: Sequence[bytes]) -> list[list[bytes]]:
    """From the leaves to the root."""
    found = [[leaf_of(receipt) for receipt in receipts]]
    while len(found[-1]) > 1:
        below = found[-1]
        pairs = [below[at : at + 2] for at in range(0, len(below), 2)]
        found.append([keccak(b"".join(sorted(pair))) if len(pair) == 2 else pair[0] for pair in pairs])
    return found


def root_of(receipts: Sequence[bytes]) -> bytes:
    return levels(receipts)[-1][0] if receipts else EMPTY


def proof_of(receipts: Sequence[bytes], index: int) -> list[bytes]:
    proof = []
    for level in levels(receipts)[:-1]:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index //= 2
    return proof
