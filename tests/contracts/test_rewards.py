"""Rewards: HOLD streams by the second to what is staked, a fifth of what locked shares earn to the treasury."""

import pytest
from tests.contracts.evm import refused
from tests.contracts.freehold_chain import (
    ALICE,
    BOB,
    CEILING,
    DEPLOYER,
    GENESIS,
    NAMES,
    NOBODY,
    ONE,
    STAKING_TREASURY,
    Freehold,
    artifact,
)

A, B = ALICE.address, BOB.address
RATE = ONE // 2


@pytest.fixture
def emitting(chain: Freehold) -> Freehold:
    chain.govern(chain.staking, "setEmission", RATE)
    return chain


def test_nothing_is_emitted_until_the_timelock_says_so(chain: Freehold) -> None:
    chain.give_stake(A, ONE)
    chain.evm.warp(1_000)
    assert (chain.staking.emissionPerSecond(), chain.staking.claimable(A)) == (0, 0)
    assert (chain.staking.EMISSION_CEILING(), chain.staking.treasury()) == (CEILING, STAKING_TREASURY)


def test_unlocked_shares_get_all_in_proportion(emitting: Freehold) -> None:
    emitting.give_stake(A, 3 * ONE)
    emitting.give_stake(B, ONE)
    emitting.evm.warp(100)
    assert emitting.staking.claimable(A) == 75 * RATE
    assert emitting.staking.claimable(B) == 25 * RATE
    assert emitting.staking.claimable(STAKING_TREASURY) == 0


def test_locked_shares_get_four_fifths_and_the_treasury_the_fifth(emitting: Freehold) -> None:
    emitting.give_diem(A, 100 * ONE)  # every share of A's is locked
    assert emitting.staking.unlockedOf(A) == 0
    emitting.evm.warp(100)
    assert 80 * RATE - 1 <= emitting.staking.claimable(A) <= 80 * RATE
    assert 20 * RATE - 1 <= emitting.staking.claimable(STAKING_TREASURY) <= 20 * RATE


def test_a_burn_earns_in_full_again_from_then_on_only(emitting: Freehold) -> None:
    emitting.give_diem(A, ONE)
    emitting.evm.warp(100)
    emitting.staking.burn(ONE, 0, sender=A)
    before = emitting.staking.claimable(A)
    emitting.evm.warp(100)
    assert 80 * RATE - 1 <= before <= 80 * RATE
    assert 100 * RATE - 1 <= emitting.staking.claimable(A) - before <= 100 * RATE


def test_who_stakes_later_gets_nothing_of_before(emitting: Freehold) -> None:
    emitting.give_stake(A, ONE)
    emitting.evm.warp(100)
    emitting.give_stake(B, 9 * ONE)
    assert (emitting.staking.claimable(A), emitting.staking.claimable(B)) == (100 * RATE, 0)
    emitting.evm.warp(10)
    assert (emitting.staking.claimable(A), emitting.staking.claimable(B)) == (101 * RATE, 9 * RATE)


def test_what_cools_earns_nothing_and_a_cancelled_request_earns_again(emitting: Freehold) -> None:
    emitting.give_stake(A, ONE)
    emitting.give_stake(B, ONE)
    request = emitting.staking.requestUnstake(ONE, sender=A)
    emitting.evm.warp(100)
    assert (emitting.staking.claimable(A), emitting.staking.claimable(B)) == (0, 100 * RATE)
    emitting.staking.cancelUnstake(request, sender=A)
    emitting.evm.warp(100)
    assert (emitting.staking.claimable(A), emitting.staking.claimable(B)) == (50 * RATE, 150 * RATE)


def test_without_a_stake_nothing_is_emitted_and_nobody_gets_it_later(emitting: Freehold) -> None:
    emitting.evm.warp(1_000)
    emitting.give_stake(A, ONE)
    assert emitting.staking.claimable(A) == emitting.staking.totalEmitted() == 0
    emitting.evm.warp(10)
    assert emitting.staking.claimable(A) == 10 * RATE


def test_a_claim_mints_what_was_earned_once(emitting: Freehold) -> None:
    emitting.give_stake(A, ONE)
    emitting.evm.warp(10)
    assert emitting.staking.claim(sender=A) == 10 * RATE
    claimed = next(event for event in emitting.evm.events() if event.name == "Claimed")
    assert dict(claimed.arguments) == {"owner": A, "amount": 10 * RATE, "staked": False}
    assert emitting.hold.balanceOf(A) == 10 * RATE
    assert emitting.hold.totalSupply() == GENESIS + 10 * RATE
    with refused("NothingToClaim", A):
        emitting.staking.claim(sender=A)


def test_claim_and_stake_stakes_what_was_earned(emitting: Freehold) -> None:
    emitting.give_stake(A, ONE)
    emitting.evm.warp(10)
    assert emitting.staking.claimAndStake(sender=A) == 10 * RATE
    by_name = {event.name: dict(event.arguments) for event in emitting.evm.events()}
    assert by_name["Claimed"] == {"owner": A, "amount": 10 * RATE, "staked": True}
    assert by_name["Staked"] == {"payer": A, "recipient": A, "amount": 10 * RATE, "balance": ONE + 10 * RATE}
    assert emitting.staking.balanceOf(A) == emitting.hold.balanceOf(emitting.staking.address) == ONE + 10 * RATE
    assert emitting.hold.balanceOf(A) == 0
    with refused("NothingToClaim", B):
        emitting.staking.claimAndStake(sender=B)


def test_the_treasury_claims_like_anybody(emitting: Freehold) -> None:
    emitting.give_diem(A, 10 * ONE)
    emitting.evm.warp(1_000)
    amount = emitting.staking.claim(sender=STAKING_TREASURY)
    assert 200 * RATE - 1 <= amount == emitting.hold.balanceOf(STAKING_TREASURY)


def test_rewards_settle_before_the_emission_changes(emitting: Freehold) -> None:
    emitting.give_stake(A, ONE)
    emitting.evm.warp(10)
    emitting.govern(emitting.staking, "setEmission", 0)
    changed = next(event for event in emitting.evm.events() if event.name == "EmissionChanged")
    assert dict(changed.arguments) == {"oldPerSecond": RATE, "newPerSecond": 0}
    emitting.evm.warp(10)
    assert emitting.staking.claimable(A) == 10 * RATE


def test_the_emission_is_set_by_the_timelock_up_to_the_ceiling(chain: Freehold) -> None:
    with refused("NotTimelock", DEPLOYER):
        chain.staking.setEmission(1, sender=DEPLOYER)
    with refused("AboveCeiling", CEILING + 1, CEILING):
        chain.govern(chain.staking, "setEmission", CEILING + 1)
    chain.govern(chain.staking, "setEmission", CEILING)
    assert chain.staking.emissionPerSecond() == CEILING


def test_a_new_treasury_gets_the_part_from_then_on(emitting: Freehold) -> None:
    emitting.give_diem(A, 10 * ONE)
    emitting.evm.warp(1_000)
    emitting.govern(emitting.staking, "setTreasury", B)
    changed = next(event for event in emitting.evm.events() if event.name == "TreasuryChanged")
    assert dict(changed.arguments) == {"oldTreasury": STAKING_TREASURY, "newTreasury": B}
    emitting.evm.warp(500)
    assert 200 * RATE - 1 <= emitting.staking.claim(sender=STAKING_TREASURY) <= 200 * RATE
    assert 100 * RATE - 1 <= emitting.staking.claim(sender=B) <= 100 * RATE


def test_the_treasury_is_changed_by_the_timelock_and_never_nobody(chain: Freehold) -> None:
    with refused("NotTimelock", A):
        chain.staking.setTreasury(A, sender=A)
    with refused("ZeroAddress"):
        chain.govern(chain.staking, "setTreasury", NOBODY)
    with refused("ZeroAddress"):
        chain.evm.deploy(artifact("Staking"), chain.timelock.address, GENESIS, NOBODY, CEILING, NAMES, sender=DEPLOYER)


def test_only_staking_mints_hold(chain: Freehold) -> None:
    assert chain.hold.STAKING() == chain.staking.address
    for caller in (DEPLOYER, A):
        with refused("NotStaking", caller):
            chain.hold.mint(caller, 1, sender=caller)


def test_a_wei_staked_alone_for_a_century_breaks_nothing(chain: Freehold) -> None:
    """The index grows fastest then; a large stake must still be able to come, earn and go."""
    chain.govern(chain.staking, "setEmission", CEILING)
    chain.give_stake(A, 1)
    chain.evm.warp(100 * 365 * 86_400)
    chain.give_stake(B, GENESIS // 2)
    chain.evm.warp(1_000)
    assert chain.staking.claim(sender=A) == 100 * 365 * 86_400 * CEILING
    assert 1_000 * CEILING - 2 <= chain.staking.claim(sender=B) <= 1_000 * CEILING
    chain.staking.requestUnstake(GENESIS // 2, sender=B)


def test_settling_each_second_loses_no_more_than_a_wei_each(emitting: Freehold) -> None:
    emitting.give_stake(A, GENESIS // 3)
    emitting.give_stake(B, 7)
    for _ in range(200):
        emitting.evm.warp(1)
        emitting.give_stake(A, 1)
    assert 200 * RATE - 400 <= emitting.staking.claimable(A) + emitting.staking.claimable(B) <= 200 * RATE
