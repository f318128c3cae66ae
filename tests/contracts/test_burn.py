"""What a burn unlocks, against exact fractions: over some thousand draws, 100,000 of them by `make laws`."""

import random
from fractions import Fraction
from math import floor

import pytest
from tests.contracts.evm import refused
from tests.contracts.freehold_chain import ALICE, BOB, ONE, Freehold
from tests.contracts.lengths import draws, limit_s

A = ALICE.address
A_POSITION = 100
"""Draws of each position."""


@pytest.mark.timeout(limit_s(300))
def test_burns_agree_with_exact_fractions(chain: Freehold) -> None:
    """Pro rata of what is redeemable, which is the locked less a wei for each mint and burn, rounded down, less a wei."""
    draw = random.Random(402031)
    chain.give_diem(BOB.address, 4_321 * ONE + 1)
    chain.give_stake(A, 30_000_000 * ONE)
    locked, redeemable, outstanding = 0, Fraction(0), 0
    for _ in range(draws(4_000) // A_POSITION):
        amount = draw.choice([draw.randint(1, 9), draw.randint(1, ONE), draw.randint(1, 300 * ONE)])
        if outstanding and draw.random() < 0.45:
            amount = min(amount, outstanding)
            unlocked = chain.staking.burn(amount, 0, sender=A)
            assert unlocked == floor(redeemable * amount / outstanding) - 1
            redeemable -= unlocked + 1
            locked, outstanding = locked - unlocked, outstanding - amount
        else:
            cost = chain.staking.mintExact(amount, 2**255, sender=A)
            redeemable += cost - 1
            locked, outstanding = locked + cost, outstanding + amount
        assert chain.staking.positionOf(A) == (locked, outstanding)
        assert chain.staking.totalLocked() >= chain.staking.costOf(chain.diem.totalSupply())
        for _ in range(A_POSITION if outstanding else 0):
            part = draw.randint(1, outstanding)
            pro_rata = Fraction(locked * part, outstanding)
            quoted = chain.staking.quoteBurn(A, part)
            assert quoted == floor(redeemable * part / outstanding) - 1
            assert pro_rata - (locked - redeemable) - 2 < quoted < pro_rata


def test_a_quote_of_nothing_is_nothing_and_of_too_much_refused(chain: Freehold) -> None:
    chain.give_diem(A, 10)
    assert chain.staking.quoteBurn(A, 0) == 0
    with refused("BurnBeyondPosition", A, 11, 10):
        chain.staking.quoteBurn(A, 11)
