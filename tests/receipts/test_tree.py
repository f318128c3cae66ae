"""The day's tree and its proofs."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from freehold.receipts import tree

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


def test_a_leaf_is_the_hash_of_the_receipts_hash() -> None:
    assert tree.leaf(b"\x01" * 32) == keccak(keccak(encode(["bytes32"], [b"\x01" * 32])))


def test_no_receipts_have_the_root_0_and_one_is_its_own_root() -> None:
    assert tree.root(tree.levels([])) == bytes(32)
    assert tree.root(tree.levels([b"\x05" * 32])) == b"\x05" * 32


def test_three_leaves_are_hashed_smaller_first_and_the_odd_one_goes_up_as_it_is() -> None:
    one, two, three = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
    pair = keccak(one + two)
    assert tree.root(tree.levels([three, two, one])) == keccak(min(pair, three) + max(pair, three))


@given(LEAVES)
def test_every_leaf_has_a_proof_that_leads_to_the_root(leaves: list[bytes]) -> None:
    made = tree.levels(leaves)
    for leaf in leaves:
        assert tree.root_of(leaf, tree.proof(made, leaf)) == tree.root(made)


@given(LEAVES, st.binary(min_size=32, max_size=32))
def test_a_leaf_that_is_not_there_has_no_proof(leaves: list[bytes], other: bytes) -> None:
    made = tree.levels(leaves)
    if other not in leaves:
        with pytest.raises(LookupError):
            tree.proof(made, other)


@given(LEAVES.filter(lambda leaves: len(leaves) > 1))
def test_an_inner_node_offered_as_a_receipt_does_not_lead_to_the_root(leaves: list[bytes]) -> None:
    made = tree.levels(leaves)
    inner = made[1][0]
    siblings = tree.proof(made, made[0][0])[1:]
    assert tree.root_of(inner, siblings) == tree.root(made)  # as a node it would
    assert tree.root_of(tree.leaf(inner), siblings) != tree.root(made)
