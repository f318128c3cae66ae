"""A day's Merkle tree. Pure.

A leaf is keccak256(keccak256(receipt hash)), so no inner node passes for a receipt. The leaves stand in order of their
bytes. An inner node is the keccak256 of its two children, the smaller first; a node without a sibling goes up as it is.
Proofs are those of OpenZeppelin's MerkleProof with the leaf type bytes32.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from eth_utils.crypto import keccak

NO_ROOT = bytes(32)
"""The root of a day without receipts."""


def leaf(receipt_hash: bytes) -> bytes:
    return keccak(keccak(receipt_hash))


def levels(leaves: Iterable[bytes]) -> list[list[bytes]]:
    """The tree from the ordered leaves up to its root; no level at all for no leaves."""
    level = sorted(leaves)
    found = [level] if level else []
    while len(level) > 1:
        level = [join(*level[at : at + 2]) if at + 1 < len(level) else level[at] for at in range(0, len(level), 2)]
        found.append(level)
    return found


def root(tree: Sequence[Sequence[bytes]]) -> bytes:
    return tree[-1][0] if tree else NO_ROOT


def proof(tree: Sequence[Sequence[bytes]], of: bytes) -> list[bytes]:
    """The siblings of a leaf, from the bottom up. Raises LookupError."""
    place = bisect_left(tree[0], of) if tree else 0
    if not tree or place == len(tree[0]) or tree[0][place] != of:
        raise LookupError("that leaf is not in the tree")
    siblings = []
    for level in tree[:-1]:
        if place ^ 1 < len(level):
            siblings.append(level[place ^ 1])
        place //= 2
    return siblings


def root_of(of: bytes, siblings: Iterable[bytes]) -> bytes:
    """The root that a leaf and its siblings come to."""
    for sibling in siblings:
        of = join(of, sibling)
    return of


def join(one: bytes, two: bytes) -> bytes:
    return keccak(one + two if one < two else two + one)
