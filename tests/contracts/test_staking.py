"""Staking: one cooldown per request, locks along the curve, pro-rata unlocks, and what the timelock may set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.curve_oracle import CurveOracle
from tests.contracts.evm import DAY_S, refused
from tests.contracts.freehold_chain import (
    ALICE,
    BOB,
    CAROL,
    COMMITTED,
    DEPLOYER,
    NAMES,
    NOBODY,
    ONE,
    OPERATOR,
    Freehold,
    artifact,
)

from freehold.chain import curve

A, B = ALICE.address, BOB.address
ORACLE = CurveOracle(curve.points())


def test_staking_gives_as_many_shares_to_the_recipient(chain: Freehold) -> None:
    chain.hold.approve(chain.staking.address, 10, sender=DEPLOYER)
    chain.staking.stake(A, 10, sender=DEPLOYER)
    staked = next(event for event in chain.evm.events() if event.name == "Staked")
    assert dict(staked.arguments) == {"payer": DEPLOYER, "recipient": A, "amount": 10, "balance": 10}
    assert (chain.staking.symbol(), chain.staking.decimals()) == ("sHOLD", 18)
    assert chain.staking.balanceOf(A) == chain.staking.unlockedOf(A) == chain.staking.totalSupply() == 10
    assert chain.hold.balanceOf(chain.staking.address) == 10


def test_staking_nothing_or_for_nobody_or_without_approval_is_refused(chain: Freehold) -> None:
    with refused("ZeroAmount"):
        chain.staking.stake(A, 0, sender=DEPLOYER)
    with refused("ERC20InvalidReceiver", NOBODY):
        chain.staking.stake(NOBODY, 1, sender=DEPLOYER)
    with refused("ERC20InsufficientAllowance", chain.staking.address, 0, 1):
        chain.staking.stake(A, 1, sender=DEPLOYER)


def test_shares_go_to_nobody_else(chain: Freehold) -> None:
    chain.give_stake(A, 10)
    with refused("NotTransferable", A, B, 1):
        chain.staking.transfer(B, 1, sender=A)
    chain.staking.approve(B, 5, sender=A)
    with refused("NotTransferable", A, B, 2):
        chain.staking.transferFrom(A, B, 2, sender=B)


def test_a_request_takes_shares_at_once_and_pays_after_seven_days(chain: Freehold) -> None:
    chain.give_stake(A, 10)
    request = chain.staking.requestUnstake(4, sender=A)
    ready = chain.evm.now_s + 7 * DAY_S
    asked = chain.evm.events()[-1]
    assert dict(asked.arguments) == {"id": request, "owner": A, "amount": 4, "readyAt": ready, "balance": 6}
    assert (chain.staking.balanceOf(A), chain.staking.requestOf(request)) == (6, (A, 4, ready))
    chain.evm.warp(7 * DAY_S - 1)
    with refused("StillCooling", request, ready, ready - 1):
        chain.staking.withdraw(request, sender=A)
    chain.evm.warp(1)
    chain.staking.withdraw(request, sender=A)
    assert dict(chain.evm.events()[0].arguments) == {"id": request, "owner": A, "amount": 4}
    assert chain.hold.balanceOf(A) == 4
    assert chain.staking.requestOf(request) == (NOBODY, 0, 0)
    with refused("UnknownRequest", request):
        chain.staking.withdraw(request, sender=A)


def test_a_later_request_delays_no_earlier_one(chain: Freehold) -> None:
    chain.give_stake(A, 10)
    first = chain.staking.requestUnstake(4, sender=A)
    chain.evm.warp(6 * DAY_S)
    second = chain.staking.requestUnstake(5, sender=A)
    chain.evm.warp(DAY_S)
    chain.staking.withdraw(first, sender=A)
    with refused("StillCooling", second, chain.evm.now_s + 6 * DAY_S, chain.evm.now_s):
        chain.staking.withdraw(second, sender=A)
    assert chain.hold.balanceOf(A) == 4


def test_a_cancelled_request_is_staked_again(chain: Freehold) -> None:
    chain.give_stake(A, 10)
    request = chain.staking.requestUnstake(4, sender=A)
    chain.staking.cancelUnstake(request, sender=A)
    assert dict(chain.evm.events()[-1].arguments) == {"id": request, "owner": A, "amount": 4, "balance": 10}
    assert chain.staking.unlockedOf(A) == 10
    with refused("UnknownRequest", request):
        chain.staking.cancelUnstake(request, sender=A)


def test_a_request_is_its_owners_alone(chain: Freehold) -> None:
    chain.give_stake(A, 10)
    request = chain.staking.requestUnstake(4, sender=A)
    chain.evm.warp(7 * DAY_S)
    for verb in (chain.staking.cancelUnstake, chain.staking.withdraw):
        with refused("NotOwnRequest", request, A, B):
            verb(request, sender=B)


def test_a_request_for_nothing_or_for_more_than_is_unlocked_is_refused(chain: Freehold) -> None:
    chain.give_stake(A, 100 * ONE)
    cost = chain.staking.mintExact(ONE, 2**255, sender=A)
    with refused("ZeroAmount"):
        chain.staking.requestUnstake(0, sender=A)
    with refused("NotUnlocked", A, 100 * ONE - cost + 1, 100 * ONE - cost):
        chain.staking.requestUnstake(100 * ONE - cost + 1, sender=A)


def test_minting_locks_exactly_what_the_quote_says(chain: Freehold) -> None:
    chain.give_stake(A, 10_000 * ONE)
    quoted = chain.staking.quoteMint(9_000 * ONE)
    minted = chain.staking.mint(9_000 * ONE, quoted, sender=A)
    cost = ORACLE.cost(minted)
    assert minted == quoted == ORACLE.supply_for(9_000 * ONE)
    assert chain.evm.events()[0].arguments == {
        "owner": A,
        "diemOut": minted,
        "cost": cost,
        "locked": cost,
        "outstanding": minted,
        "supply": minted,
    }
    assert chain.diem.balanceOf(A) == chain.diem.totalSupply() == minted
    assert chain.staking.positionOf(A) == (cost, minted)
    assert chain.staking.unlockedOf(A) == 10_000 * ONE - cost
    assert chain.staking.balanceOf(A) == 10_000 * ONE


def test_minting_exactly_locks_at_most_what_is_allowed(chain: Freehold) -> None:
    chain.give_stake(A, 1_000 * ONE)
    cost = chain.staking.quoteLock(ONE)
    with refused("TooMuchLocked", cost, cost - 1):
        chain.staking.mintExact(ONE, cost - 1, sender=A)
    assert chain.staking.mintExact(ONE, cost, sender=A) == cost
    assert chain.diem.balanceOf(A) == ONE


def test_a_mint_that_gives_too_little_is_refused(chain: Freehold) -> None:
    chain.give_stake(A, 1_000 * ONE)
    quoted = chain.staking.quoteMint(500 * ONE)
    with refused("TooLittleDiem", quoted, quoted + 1):
        chain.staking.mint(500 * ONE, quoted + 1, sender=A)


def test_a_mint_of_nothing_or_beyond_what_is_unlocked_is_refused(chain: Freehold) -> None:
    chain.give_stake(A, ONE)
    with refused("ZeroAmount"):
        chain.staking.mint(0, 0, sender=A)
    with refused("ZeroAmount"):
        chain.staking.mintExact(0, 0, sender=A)
    cost = chain.staking.quoteLock(ONE)
    with refused("NotUnlocked", A, cost, ONE):
        chain.staking.mintExact(ONE, cost, sender=A)


def test_what_operators_committed_caps_the_supply(chain: Freehold) -> None:
    chain.govern(chain.staking, "setCommitted", OPERATOR, 10 * ONE)
    chain.give_stake(A, 10_000 * ONE)
    chain.staking.mintExact(10 * ONE, 2**255, sender=A)
    with refused("BeyondCommitted", 10 * ONE + 1, 10 * ONE):
        chain.staking.mintExact(1, 2**255, sender=A)
    with refused("BeyondCommitted", 10 * ONE + 1, 10 * ONE):
        chain.staking.quoteLock(1)


def test_committed_below_the_supply_refuses_mints_and_nothing_else(chain: Freehold) -> None:
    chain.give_diem(A, 20 * ONE)
    chain.govern(chain.staking, "setCommitted", OPERATOR, 10 * ONE)
    changed = next(event for event in chain.evm.events() if event.name == "CommittedChanged")
    assert dict(changed.arguments) == {
        "operator": OPERATOR,
        "oldAmount": COMMITTED,
        "newAmount": 10 * ONE,
        "total": 10 * ONE,
    }
    chain.give_stake(A, 1_000 * ONE)
    with refused("BeyondCommitted", 21 * ONE, 10 * ONE):
        chain.staking.mintExact(ONE, 2**255, sender=A)
    chain.staking.burn(5 * ONE, 0, sender=A)
    chain.staking.requestUnstake(100 * ONE, sender=A)
    assert chain.diem.balanceOf(A) == 15 * ONE


def test_commitments_add_up_and_end_with_the_curve(chain: Freehold) -> None:
    chain.govern(chain.staking, "setCommitted", B, 10_000 * ONE)
    assert chain.staking.totalCommitted() == 50_000 * ONE
    assert (chain.staking.committedOf(OPERATOR), chain.staking.committedOf(B)) == (COMMITTED, 10_000 * ONE)
    with refused("CurveBelow", 50_000 * ONE, 50_000 * ONE + 1):
        chain.govern(chain.staking, "setCommitted", B, 10_000 * ONE + 1)


def test_only_the_timelock_sets_commitments(chain: Freehold) -> None:
    with refused("NotTimelock", DEPLOYER):
        chain.staking.setCommitted(OPERATOR, 0, sender=DEPLOYER)


def test_staking_needs_a_timelock(chain: Freehold) -> None:
    with refused("ZeroAddress"):
        chain.evm.deploy(artifact("Staking"), NOBODY, 1, A, 0, NAMES, sender=DEPLOYER)


def test_burning_unlocks_pro_rata_of_ones_own_position(chain: Freehold) -> None:
    chain.give_diem(A, 100 * ONE)
    chain.give_diem(B, 100 * ONE)
    locked, _ = chain.staking.positionOf(B)
    quoted = chain.staking.quoteBurn(B, 25 * ONE)
    assert chain.staking.burn(25 * ONE, quoted, sender=B) == quoted
    assert 0 <= locked // 4 - quoted <= 1
    assert chain.evm.events()[0].arguments == {
        "owner": B,
        "diemIn": 25 * ONE,
        "unlocked": quoted,
        "locked": locked - quoted,
        "outstanding": 75 * ONE,
        "supply": 175 * ONE,
    }
    assert chain.staking.positionOf(B) == (locked - quoted, 75 * ONE)
    assert chain.staking.unlockedOf(B) == quoted
    assert chain.diem.balanceOf(B) == 75 * ONE


def test_any_diem_will_do_but_only_for_a_position_of_ones_own(chain: Freehold) -> None:
    chain.give_diem(A, 10 * ONE)
    chain.give_diem(B, 10 * ONE)
    chain.diem.transfer(B, 10 * ONE, sender=A)
    with refused("ERC20InsufficientBalance", A, 0, ONE):
        chain.staking.burn(ONE, 0, sender=A)
    with refused("BurnBeyondPosition", B, 10 * ONE + 1, 10 * ONE):
        chain.staking.burn(10 * ONE + 1, 0, sender=B)
    chain.staking.burn(10 * ONE, 0, sender=B)
    assert chain.diem.balanceOf(B) == 10 * ONE
    with refused("BurnBeyondPosition", B, 1, 0):
        chain.staking.burn(1, 0, sender=B)


def test_a_burn_of_nothing_or_that_unlocks_too_little_is_refused(chain: Freehold) -> None:
    chain.give_diem(A, 10 * ONE)
    with refused("ZeroAmount"):
        chain.staking.burn(0, 0, sender=A)
    assert chain.staking.quoteBurn(A, 0) == 0
    quoted = chain.staking.quoteBurn(A, ONE)
    with refused("TooLittleUnlocked", quoted, quoted + 1):
        chain.staking.burn(ONE, quoted + 1, sender=A)


def test_roundings_never_leave_less_locked_than_the_supply_costs(chain: Freehold) -> None:
    """Without the wei that stays, 91 for A's first wei and 90 for B's leave 90 when A burns, where C(1) is 91."""
    for owner in (A, B):
        chain.give_stake(owner, 1_000)
        chain.staking.mintExact(1, 91, sender=owner)
    assert [chain.staking.positionOf(owner) for owner in (A, B)] == [(91, 1), (90, 1)]
    chain.staking.burn(1, 0, sender=A)
    assert chain.staking.totalLocked() >= chain.staking.costOf(1) == 91


HALF_WEI = [(0, 181 * ONE // 2), (50_000 * ONE, 181 * ONE // 2)]
"""A rate of 90.5: a mint of 1 wei costs 91 and 90 in turn."""


def test_mints_that_were_rounded_up_take_nothing_from_those_that_were_rounded_down(chain: Freehold) -> None:
    chain.govern(chain.staking, "setCurve", HALF_WEI)
    for owner in (A, B):
        chain.give_stake(owner, 1_000)
    for _ in range(10):
        chain.staking.mintExact(1, 91, sender=A)
        chain.staking.mintExact(1, 90, sender=B)
    assert [chain.staking.positionOf(owner)[0] for owner in (A, B)] == [910, 900]
    chain.staking.burn(10, 0, sender=A)
    assert chain.staking.totalLocked() >= chain.staking.costOf(10) == 905


def test_burning_a_dear_lock_in_bits_and_minting_them_anew_takes_nothing_from_the_rest(chain: Freehold) -> None:
    """A's lock is exactly 100 wei for each of 19, where each of them now costs 90.5, and every second one only 90."""
    half = 181 * ONE // 2
    steps = [(0, half), (100, half), (101, half + 11 * ONE), (50_000 * ONE + 1, half + 11 * ONE)]
    chain.govern(chain.staking, "setCurve", steps)
    carol = CAROL.address
    for owner in (A, B, carol):
        chain.give_stake(owner, 10_000)
    chain.staking.mintExact(98, 2**255, sender=B)
    assert chain.staking.mintExact(19, 2**255, sender=A) == 1_901
    chain.staking.burn(97, 0, sender=B)
    for _ in range(19):
        chain.staking.burn(1, 0, sender=A)
        assert chain.staking.mintExact(1, 2**255, sender=carol) == 90
    assert chain.diem.totalSupply() == 20
    assert chain.staking.totalLocked() >= chain.staking.costOf(20) == 1_810


@settings(max_examples=200)
@given(steps=st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from([-9, -2, -1, 1, 1, 2])), max_size=40))
def test_no_order_of_mints_and_burns_of_wei_unlocks_what_the_rest_needs(
    deployed: Freehold, steps: list[tuple[str, int]]
) -> None:
    staking = deployed.staking
    with deployed.evm.undone():
        deployed.govern(staking, "setCurve", HALF_WEI)
        for owner in (A, B):
            deployed.give_stake(owner, ONE)
        for owner, wei in steps:
            _, outstanding = staking.positionOf(owner)
            if wei > 0:
                staking.mintExact(wei, 2**255, sender=owner)
            elif outstanding:
                staking.burn(min(-wei, outstanding), 0, sender=owner)
            assert staking.totalLocked() >= staking.costOf(deployed.diem.totalSupply())


@pytest.mark.parametrize("rounds", [1, 50])
def test_what_roundings_leave_behind_is_wei(chain: Freehold, rounds: int) -> None:
    chain.give_stake(A, 10_000 * ONE)
    for _ in range(rounds):
        chain.staking.mint(1_000 * ONE, 0, sender=A)
        chain.staking.burn(chain.diem.balanceOf(A), 0, sender=A)
    locked, outstanding = chain.staking.positionOf(A)
    assert outstanding == 0
    assert locked <= 2 * rounds
