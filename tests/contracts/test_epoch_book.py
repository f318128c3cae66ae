"""EpochBook: days one after another, totals that add up, and proofs that only a receipt of the day passes."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.evm import DAY_S, START_S, Contract, refused
from tests.contracts.freehold_chain import ALICE, BOB, DEPLOYER, NOBODY, OPERATOR, Freehold, artifact
from tests.contracts.merkle_oracle import EMPTY, leaf_of, levels, proof_of, root_of

from freehold.receipts import tree

A, B = ALICE.address, BOB.address
YESTERDAY = START_S // DAY_S - 1
RECEIPTS = [keccak(text=f"receipt {n}") for n in range(7)]
PURSE = "(uint64,uint64,uint64,uint64,uint64)"
NOTHING = (0, 0, 0, 0, 0)
Purse = tuple[int, int, int, int, int]


def totals(
    allowance: Purse = NOTHING, strip: Purse = NOTHING, promo: Purse = NOTHING, prepaid: Purse = NOTHING
) -> tuple[Purse, ...]:
    """Each purse: opening, granted, used, expired, closing."""
    return (allowance, strip, promo, prepaid)


@dataclass
class Books:
    chain: Freehold
    contract: Contract

    def publish(self, day: int, receipts: Sequence[bytes] = (), sums: tuple[Purse, ...] | None = None) -> None:
        self.contract.publish(day, root_of(receipts), sums or totals(), sender=OPERATOR)


@pytest.fixture
def book(chain: Freehold) -> Books:
    made = chain.evm.deploy(artifact("EpochBook"), chain.timelock.address, OPERATOR, OPERATOR, sender=DEPLOYER)
    return Books(chain, made)


def test_a_day_is_published_with_its_root_and_totals(book: Books) -> None:
    sums = totals((0, 10, 7, 3, 0), (0, 5, 5, 0, 0), (4, 1, 2, 1, 2), (100, 50, 30, 0, 120))
    book.publish(YESTERDAY, RECEIPTS, sums)
    published = book.chain.evm.events()[0]
    assert (published.name, published.arguments["day"]) == ("Published", YESTERDAY)
    assert (published.arguments["root"], published.arguments["totals"]) == (root_of(RECEIPTS), sums)
    assert book.contract.rootOf(YESTERDAY) == root_of(RECEIPTS)
    assert book.contract.totalsHashOf(YESTERDAY) == keccak(encode([f"({','.join([PURSE] * 4)})"], [sums]))
    assert (book.contract.firstDay(), book.contract.nextDay()) == (YESTERDAY, YESTERDAY + 1)
    assert (book.contract.OPERATOR(), book.contract.publisher()) == (OPERATOR, OPERATOR)


def test_days_follow_one_another_from_the_first_and_none_is_replaced(book: Books) -> None:
    book.publish(YESTERDAY - 5)
    for day in (YESTERDAY - 6, YESTERDAY - 5, YESTERDAY - 3):
        with refused("NotNextDay", day, YESTERDAY - 4):
            book.publish(day)
    for day in range(YESTERDAY - 4, YESTERDAY + 1):
        book.publish(day)
    assert book.contract.firstDay() == YESTERDAY - 5


def test_only_a_day_that_is_over_is_published(book: Books) -> None:
    book.chain.evm.warp_to(START_S + DAY_S - 1)
    with refused("DayNotOver", YESTERDAY + 1, START_S + DAY_S, START_S + DAY_S - 1):
        book.publish(YESTERDAY + 1)
    book.chain.evm.warp(1)
    book.publish(YESTERDAY + 1)


def test_only_the_publisher_publishes(book: Books) -> None:
    with refused("NotPublisher", A, OPERATOR):
        book.contract.publish(YESTERDAY, EMPTY, totals(), sender=A)


@pytest.mark.parametrize("place", range(4))
def test_every_purse_must_add_up(book: Books, place: int) -> None:
    name = ("allowance", "strip", "promo", "prepaid")[place]
    purses = [NOTHING] * 4
    purses[place] = (0, 10, 7, 2, 0)
    with refused("PurseUneven", name, 10, 9):
        book.publish(YESTERDAY, RECEIPTS, tuple(purses))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("purse", [(1, 0, 1, 0, 0), (0, 1, 0, 0, 1)])
def test_allowance_and_strip_end_with_their_day(book: Books, place: int, purse: Purse) -> None:
    purses = [NOTHING] * 4
    purses[place] = purse
    with refused("PurseCarried", ("allowance", "strip")[place], purse[0], purse[4]):
        book.publish(YESTERDAY, RECEIPTS, tuple(purses))


@pytest.mark.parametrize("name", ["promo", "prepaid"])
def test_promo_and_prepaid_open_with_what_they_closed_with(book: Books, name: str) -> None:
    book.publish(YESTERDAY - 1, RECEIPTS, totals(**{name: (0, 10, 4, 1, 5)}))
    with refused("PurseBroken", name, 6, 5):
        book.publish(YESTERDAY, RECEIPTS, totals(**{name: (6, 0, 6, 0, 0)}))
    book.publish(YESTERDAY, RECEIPTS, totals(**{name: (5, 0, 5, 0, 0)}))


def test_a_day_without_receipts_has_no_root_and_no_use(book: Books) -> None:
    with refused("UsedWithoutReceipts", 3):
        book.publish(YESTERDAY, (), totals((0, 3, 3, 0, 0)))
    book.publish(YESTERDAY, (), totals((0, 3, 0, 3, 0)))
    assert book.contract.rootOf(YESTERDAY) == EMPTY
    assert not book.contract.verify(YESTERDAY, RECEIPTS[0], [])
    assert not book.contract.verify(YESTERDAY, EMPTY, [])


def test_each_receipt_of_the_day_verifies_and_only_on_its_day(book: Books) -> None:
    book.publish(YESTERDAY - 1, RECEIPTS)
    book.publish(YESTERDAY, RECEIPTS[:1])
    for index, receipt in enumerate(RECEIPTS):
        assert book.contract.verify(YESTERDAY - 1, receipt, proof_of(RECEIPTS, index))
        assert not book.contract.verify(YESTERDAY + 1, receipt, proof_of(RECEIPTS, index))
    assert book.contract.verify(YESTERDAY, RECEIPTS[0], [])
    assert not book.contract.verify(YESTERDAY, RECEIPTS[1], [])


def test_the_tree_that_receipts_are_published_by_is_the_one_that_the_contract_reads(book: Books) -> None:
    leaves = [tree.leaf(receipt) for receipt in RECEIPTS]
    published = tree.levels(leaves)
    book.contract.publish(YESTERDAY, tree.root(published), totals(), sender=OPERATOR)
    for receipt in RECEIPTS:
        assert book.contract.verify(YESTERDAY, receipt, tree.proof(published, tree.leaf(receipt)))
    assert tree.root(published) == root_of(sorted(RECEIPTS, key=leaf_of))


def test_a_changed_digit_does_not_verify(book: Books) -> None:
    book.publish(YESTERDAY, RECEIPTS)
    proof = proof_of(RECEIPTS, 2)
    changed = bytes([RECEIPTS[2][0] ^ 1]) + RECEIPTS[2][1:]
    assert not book.contract.verify(YESTERDAY, changed, proof)
    for place in range(len(proof)):
        wrong = [*proof]
        wrong[place] = bytes([wrong[place][0] ^ 1]) + wrong[place][1:]
        assert not book.contract.verify(YESTERDAY, RECEIPTS[2], wrong)
    assert not book.contract.verify(YESTERDAY, RECEIPTS[2], proof[:-1])


def test_neither_a_leaf_nor_an_inner_node_nor_the_root_passes_for_a_receipt(book: Books) -> None:
    book.publish(YESTERDAY, RECEIPTS)
    tree = levels(RECEIPTS)
    assert not book.contract.verify(YESTERDAY, leaf_of(RECEIPTS[0]), proof_of(RECEIPTS, 0))
    assert not book.contract.verify(YESTERDAY, tree[1][0], [tree[1][1], tree[2][1]])
    assert not book.contract.verify(YESTERDAY, tree[-1][0], [])


@settings(max_examples=100, deadline=None)
@given(receipts=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70, unique=True), data=st.data())
def test_any_tree_proves_its_receipts_and_no_other(
    deployed: Freehold, receipts: list[bytes], data: st.DataObject
) -> None:
    with deployed.evm.undone():
        chain = deployed
        book = chain.evm.deploy(artifact("EpochBook"), chain.timelock.address, OPERATOR, OPERATOR, sender=DEPLOYER)
        book.publish(YESTERDAY, root_of(receipts), totals(), sender=OPERATOR)
        index = data.draw(st.integers(0, len(receipts) - 1))
        other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda found: found != receipts[index]))
        assert book.verify(YESTERDAY, receipts[index], proof_of(receipts, index))
        assert not book.verify(YESTERDAY, other, proof_of(receipts, index))


def test_the_timelock_replaces_the_publisher(book: Books) -> None:
    with refused("NotTimelock", OPERATOR):
        book.contract.setPublisher(A, sender=OPERATOR)
    book.chain.govern(book.contract, "setPublisher", A)
    changed = next(event for event in book.chain.evm.events() if event.name == "PublisherChanged")
    assert dict(changed.arguments) == {"oldPublisher": OPERATOR, "newPublisher": A}
    with refused("NotPublisher", OPERATOR, A):
        book.publish(YESTERDAY)
    book.contract.publish(YESTERDAY, EMPTY, totals(), sender=A)


def test_a_book_needs_a_timelock_an_operator_and_a_publisher(chain: Freehold) -> None:
    for arguments in ((NOBODY, A, B), (A, NOBODY, B), (A, B, NOBODY)):
        with refused("ZeroAddress"):
            chain.evm.deploy(artifact("EpochBook"), *arguments, sender=DEPLOYER)
