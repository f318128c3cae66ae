"""What somebody would try: donations, dust, a token that calls back, messages used twice or by another, griefing, midnights."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts import calendar_oracle as calendar
from tests.contracts import signatures
from tests.contracts.compiled import compiled
from tests.contracts.evm import DAY_S, Contract, Refused, refused
from tests.contracts.freehold_chain import (
    ALICE,
    BOB,
    CAROL,
    DEPLOYER,
    ONE,
    OPERATOR,
    TREASURY,
    Freehold,
    artifact,
    deploy,
)

A, B, MALLORY = ALICE.address, BOB.address, CAROL.address
RATE = ONE // 3


def furnished(chain: Freehold) -> Freehold:
    """A and MALLORY hold 100 DIEM each and have approved everything; rewards flow."""
    for owner in (A, MALLORY):
        chain.give_diem(owner, 100 * ONE)
        chain.give_hold(owner, 1_000 * ONE)
        chain.hold.approve(chain.staking.address, 2**256 - 1, sender=owner)
        for spender in (chain.vault, chain.strips):
            chain.diem.approve(spender.address, 2**256 - 1, sender=owner)
    chain.govern(chain.staking, "setEmission", RATE)
    return chain


@pytest.fixture
def town(chain: Freehold) -> Freehold:
    return furnished(chain)


@pytest.fixture
def doomed() -> Freehold:
    """A town of its own, for a token that is replaced stays so."""
    return furnished(deploy())


# ---- donations


def test_a_donation_to_staking_makes_nobody_richer(town: Freehold) -> None:
    before = (town.staking.totalSupply(), town.staking.quoteLock(ONE), town.staking.quoteBurn(A, ONE))
    town.hold.transfer(town.staking.address, 500 * ONE, sender=MALLORY)
    assert (town.staking.totalSupply(), town.staking.quoteLock(ONE), town.staking.quoteBurn(A, ONE)) == before
    town.staking.stake(A, 10, sender=A)
    assert town.staking.unlockedOf(A) == 10  # a share is a HOLD, whatever lies there


def test_a_donation_to_the_vault_grants_nothing(town: Freehold) -> None:
    town.diem.transfer(town.vault.address, 50 * ONE, sender=MALLORY)
    assert town.vault.allowanceOf(OPERATOR, MALLORY, town.evm.today + 1) == 0
    with refused("BeyondPosition", MALLORY, OPERATOR, MALLORY, 1, 0):
        town.vault.requestUnstake(OPERATOR, MALLORY, 1, sender=MALLORY)


def test_a_first_stake_of_a_wei_and_a_donation_round_nobody_down(town: Freehold) -> None:
    """What empties vaults whose shares have a price: here a share has none."""
    town.staking.stake(MALLORY, 1, sender=MALLORY)
    town.hold.transfer(town.staking.address, 900 * ONE, sender=MALLORY)
    town.staking.stake(A, 100 * ONE, sender=A)
    request = town.staking.requestUnstake(100 * ONE, sender=A)
    town.evm.warp(7 * DAY_S)
    town.staking.withdraw(request, sender=A)
    assert town.hold.balanceOf(A) == 1_000 * ONE


# ---- rounding dust


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(2, 25))
def test_no_order_of_dust_mints_and_burns_ends_with_more(deployed: Freehold, seed: int, steps: int) -> None:
    """Mints and burns of a few wei, in any order, never unlock more than they locked."""
    chain, draw = deployed, random.Random(seed)
    with chain.evm.undone():
        chain.give_diem(A, 123 * ONE)
        chain.give_stake(MALLORY, 1_000_000 * ONE)
        begun = chain.staking.unlockedOf(MALLORY)
        for _ in range(steps):
            outstanding = chain.staking.positionOf(MALLORY)[1]
            if outstanding and draw.random() < 0.5:
                chain.staking.burn(draw.randint(1, outstanding), 0, sender=MALLORY)
            else:
                chain.staking.mintExact(draw.choice([1, 2, 3, draw.randint(1, ONE)]), 2**255, sender=MALLORY)
        if outstanding := chain.staking.positionOf(MALLORY)[1]:
            chain.staking.burn(outstanding, 0, sender=MALLORY)
        assert chain.staking.unlockedOf(MALLORY) <= begun
        assert chain.staking.totalLocked() >= chain.staking.costOf(chain.diem.totalSupply())


def test_claiming_every_second_earns_no_more_than_claiming_once(town: Freehold) -> None:
    town.staking.stake(A, 700 * ONE, sender=A)
    town.staking.stake(MALLORY, 700 * ONE, sender=MALLORY)
    with town.evm.undone():
        town.evm.warp(100)
        once = town.staking.claim(sender=MALLORY)
    often = 0
    for _ in range(100):
        town.evm.warp(1)
        often += town.staking.claim(sender=MALLORY)
    assert once - 200 <= often <= once


def test_stakes_of_a_wei_every_second_grant_no_more_than_their_seconds(town: Freehold) -> None:
    town.evm.warp_to((town.evm.today + 1) * DAY_S)
    for _ in range(50):
        town.vault.stake(1, OPERATOR, MALLORY, sender=MALLORY)
        town.evm.warp(1)
    assert town.vault.allowanceOf(OPERATOR, MALLORY, town.evm.today) <= 50


def test_a_stake_between_two_seconds_takes_no_reward_of_the_past(town: Freehold) -> None:
    """Stake just before a claim, and leave: nothing streams to who wasn't there."""
    town.staking.stake(A, 100 * ONE, sender=A)
    town.evm.warp(1_000)
    town.staking.stake(MALLORY, 1_000 * ONE, sender=MALLORY)
    locked_before = town.staking.claimable(MALLORY)
    town.staking.requestUnstake(1_000 * ONE, sender=MALLORY)
    assert town.staking.claimable(MALLORY) == locked_before


# ---- a token that calls back


def replaced(chain: Freehold, token: Contract) -> Contract:
    """Puts a CallingToken in the place of a real token; balances and supply stay."""
    hostile = chain.evm.deploy(compiled("Doubles")["CallingToken"], sender=DEPLOYER)
    chain.evm.put_code(token.address, chain.evm.code(hostile.address))
    return Contract(chain.evm, compiled("Doubles")["CallingToken"]["abi"], token.address)


def answer(token: Contract) -> str:
    """The name of what the call back was refused with."""
    assert token.calledBack()
    return token.evm.refusal_of(token.answer()).name if not token.succeeded() else "succeeded"


def test_a_withdrawal_cant_be_entered_again_from_hold(doomed: Freehold) -> None:
    hold = replaced(doomed, doomed.hold)
    hold.mint(doomed.staking.address, 100, sender=DEPLOYER)
    had = hold.balanceOf(MALLORY)
    doomed.staking.stake(MALLORY, 5, sender=MALLORY)
    request = doomed.staking.requestUnstake(5, sender=MALLORY)
    doomed.evm.warp(7 * DAY_S)
    hold.callBack(doomed.staking.address, doomed.staking.withdraw.data(request), sender=DEPLOYER)
    doomed.staking.withdraw(request, sender=MALLORY)
    assert answer(hold) == "UnknownRequest"
    assert hold.balanceOf(MALLORY) == had


def test_a_withdrawal_cant_be_entered_again_from_diem(doomed: Freehold) -> None:
    doomed.vault.stake(5, OPERATOR, MALLORY, sender=MALLORY)
    request = doomed.vault.requestUnstake(OPERATOR, MALLORY, 5, sender=MALLORY)
    doomed.evm.warp(DAY_S)
    diem = replaced(doomed, doomed.diem)
    diem.mint(doomed.vault.address, 100, sender=DEPLOYER)
    diem.callBack(doomed.vault.address, doomed.vault.withdraw.data(request), sender=DEPLOYER)
    doomed.vault.withdraw(request, sender=MALLORY)
    assert answer(diem) == "UnknownRequest"
    assert diem.balanceOf(doomed.vault.address) == 100


def test_a_stake_is_there_when_its_diem_comes_and_counts_once(doomed: Freehold) -> None:
    diem = replaced(doomed, doomed.diem)
    diem.mint(MALLORY, 10, sender=DEPLOYER)
    diem.mint(diem.address, 10, sender=DEPLOYER)
    diem.callBack(doomed.vault.address, doomed.vault.stake.data(10, OPERATOR, MALLORY), sender=DEPLOYER)
    doomed.vault.stake(10, OPERATOR, MALLORY, sender=MALLORY)
    assert doomed.vault.stakedTo(OPERATOR) == diem.balanceOf(doomed.vault.address) == 20


def test_a_split_entered_again_owes_no_more_than_it_holds(doomed: Freehold) -> None:
    month = doomed.strips.months()[0]
    diem = replaced(doomed, doomed.diem)
    diem.mint(MALLORY, 10, sender=DEPLOYER)
    diem.mint(diem.address, 10, sender=DEPLOYER)
    diem.callBack(doomed.strips.address, doomed.strips.split.data(month, 10, MALLORY), sender=DEPLOYER)
    doomed.strips.split(month, 10, MALLORY, sender=MALLORY)
    strip, principal = doomed.series(month)
    assert strip.totalSupply() == principal.totalSupply() == diem.balanceOf(doomed.strips.address) == 20


def test_a_merge_entered_again_pays_once(doomed: Freehold) -> None:
    month = doomed.strips.months()[0]
    doomed.strips.split(month, 10, MALLORY, sender=MALLORY)
    diem = replaced(doomed, doomed.diem)
    diem.mint(doomed.strips.address, 100, sender=DEPLOYER)
    had = diem.balanceOf(MALLORY)
    diem.callBack(doomed.strips.address, doomed.strips.merge.data(month, 10, diem.address), sender=DEPLOYER)
    doomed.strips.merge(month, 10, MALLORY, sender=MALLORY)
    assert answer(diem) == "ERC20InsufficientBalance"
    assert diem.balanceOf(MALLORY) - had == 10


def test_a_claim_entered_again_pays_once(doomed: Freehold) -> None:
    doomed.staking.stake(MALLORY, 10, sender=MALLORY)
    doomed.evm.warp(100)
    earned = doomed.staking.claimable(MALLORY)
    hold = replaced(doomed, doomed.hold)
    assert doomed.staking.claim(sender=MALLORY) == earned
    with refused("NothingToClaim", MALLORY):
        doomed.staking.claim(sender=MALLORY)
    assert hold.balanceOf(MALLORY) >= earned


def test_a_burn_entered_again_unlocks_once(doomed: Freehold) -> None:
    locked, _ = doomed.staking.positionOf(MALLORY)
    diem = replaced(doomed, doomed.diem)
    diem.mint(MALLORY, 100 * ONE, sender=DEPLOYER)
    diem.mint(A, 100 * ONE, sender=DEPLOYER)
    diem.callBack(doomed.staking.address, doomed.staking.burn.data(ONE, 0), sender=DEPLOYER)
    unlocked = doomed.staking.burn(ONE, 0, sender=MALLORY)
    assert answer(diem) == "BurnBeyondPosition"  # the token has no position of its own
    assert doomed.staking.positionOf(MALLORY)[0] == locked - unlocked


def test_prepaid_credits_a_deposit_entered_again_once_for_each_payment(doomed: Freehold) -> None:
    usdc = doomed.evm.deploy(compiled("Doubles")["CallingToken"], sender=DEPLOYER)
    prepaid = doomed.evm.deploy(artifact("Prepaid"), usdc.address, TREASURY, sender=DEPLOYER)
    usdc.mint(MALLORY, 10, sender=DEPLOYER)
    usdc.mint(usdc.address, 10, sender=DEPLOYER)
    usdc.callBack(prepaid.address, prepaid.deposit.data(MALLORY, 10), sender=DEPLOYER)
    prepaid.deposit(MALLORY, 10, sender=MALLORY)
    deposited = [event.arguments["amount"] for event in doomed.evm.events() if event.name == "Deposited"]
    assert (sum(deposited), usdc.balanceOf(TREASURY), usdc.balanceOf(prepaid.address)) == (20, 20, 0)


# ---- permits and authorizations


def test_a_permit_submitted_first_by_another_stops_nothing(town: Freehold) -> None:
    town.diem.approve(town.vault.address, 0, sender=A)
    deadline = town.evm.now_s + 60
    v, r, s = ALICE.vrs(signatures.permit(town.diem, A, town.vault.address, 5, deadline))
    town.diem.permit(A, town.vault.address, 5, deadline, v, r, s, sender=MALLORY)
    town.vault.stakeWithPermit(5, OPERATOR, A, deadline, v, r, s, sender=A)
    assert town.vault.positionOf(A, OPERATOR, A) == 5


def test_anothers_permit_stakes_nothing_of_theirs(town: Freehold) -> None:
    town.diem.approve(town.vault.address, 0, sender=A)
    town.diem.approve(town.vault.address, 0, sender=MALLORY)
    deadline = town.evm.now_s + 60
    v, r, s = ALICE.vrs(signatures.permit(town.diem, A, town.vault.address, 5, deadline))
    with refused("ERC20InsufficientAllowance", town.vault.address, 0, 5):
        town.vault.stakeWithPermit(5, OPERATOR, MALLORY, deadline, v, r, s, sender=MALLORY)
    assert town.diem.balanceOf(A) == 100 * ONE


def test_a_permit_works_once_and_on_its_chain_and_token_only(town: Freehold) -> None:
    deadline = town.evm.now_s + 60
    v, r, s = ALICE.vrs(signatures.permit(town.diem, A, B, 5, deadline))
    town.diem.permit(A, B, 5, deadline, v, r, s)
    for token in (town.diem, town.hold):
        with pytest.raises(Refused) as raised:
            token.permit(A, B, 5, deadline, v, r, s)
        assert raised.value.name == "ERC2612InvalidSigner"


def test_an_authorization_works_once_also_when_it_was_submitted_by_another(town: Freehold) -> None:
    nonce = b"\x07" * 32
    digest = signatures.authorization(town.diem, signatures.TRANSFER, A, B, 5, 0, town.evm.now_s + 60, nonce)
    signature = ALICE.sign(digest)
    order = (A, B, 5, 0, town.evm.now_s + 60, nonce, signature)
    town.diem.transferWithAuthorization(*order, sender=MALLORY)
    with pytest.raises(Refused):
        town.diem.transferWithAuthorization(*order, sender=A)
    assert town.diem.balanceOf(B) == 5


# ---- griefing


def test_nobody_can_restart_or_lengthen_anothers_cooldown(town: Freehold) -> None:
    town.staking.stake(A, 10, sender=A)
    request = town.staking.requestUnstake(10, sender=A)
    ready = town.staking.requestOf(request)[2]
    for _ in range(20):
        town.evm.warp(DAY_S // 4)
        town.staking.stake(A, 1, sender=MALLORY)  # a gift
        assert town.staking.requestOf(request) == (A, 10, ready)
    with refused("NotOwnRequest", request, A, MALLORY):
        town.staking.cancelUnstake(request, sender=MALLORY)
    town.evm.warp_to(ready)
    town.staking.withdraw(request, sender=A)


def test_gifts_of_dust_to_a_vault_position_delay_no_withdrawal(town: Freehold) -> None:
    town.vault.stake(10, OPERATOR, A, sender=A)
    request = town.vault.requestUnstake(OPERATOR, A, 10, sender=A)
    for _ in range(24):
        town.evm.warp(3_600)
        town.vault.stakeFor(A, 1, OPERATOR, A, sender=MALLORY)
    town.vault.withdraw(request, sender=A)
    assert town.diem.balanceOf(A) == 100 * ONE


def test_strips_activated_for_somebody_are_theirs_to_spend_and_the_givers_to_move(town: Freehold) -> None:
    month = town.strips.months()[0]
    town.strips.split(month, 5, MALLORY, sender=MALLORY)
    town.strips.activate(month, 5, OPERATOR, A, sender=MALLORY)
    with refused("BeyondActivated", A, month, OPERATOR, A, 1, 0):
        town.strips.redirectActivated(month, 1, OPERATOR, A, OPERATOR, B, sender=A)


def test_an_operator_filled_up_by_a_stranger_can_still_be_left(town: Freehold) -> None:
    town.govern(town.staking, "setCommitted", MALLORY, 10)
    town.govern(town.vault, "registerOperator", MALLORY, "https://small.example", MALLORY)
    town.vault.stake(4, MALLORY, A, sender=A)
    town.vault.stake(6, MALLORY, MALLORY, sender=MALLORY)
    town.vault.redirect(MALLORY, A, OPERATOR, A, 4, sender=A)
    assert town.vault.positionOf(A, OPERATOR, A) == 4


# ---- midnights and months


def test_diem_withdrawn_and_staked_again_grants_each_second_once(town: Freehold) -> None:
    """Asked at the last second of a day, withdrawn at the last of the next: no day has more than one whole DIEM."""
    town.evm.warp_to((town.evm.today + 1) * DAY_S - 1)
    day = town.evm.today
    town.vault.stake(ONE, OPERATOR, MALLORY, sender=MALLORY)
    request = town.vault.requestUnstake(OPERATOR, MALLORY, ONE, sender=MALLORY)
    town.evm.warp(DAY_S)
    town.vault.withdraw(request, sender=MALLORY)
    town.vault.stake(ONE, OPERATOR, MALLORY, sender=MALLORY)
    found = [town.vault.allowanceOf(OPERATOR, MALLORY, each) for each in (day, day + 1, day + 2)]
    assert found == [ONE // DAY_S, ONE // DAY_S, ONE]


def test_principal_redeemed_at_midnight_and_staked_grants_no_day_twice(town: Freehold) -> None:
    month = town.strips.months()[0]
    end_s = town.strips.endOf(month)
    town.evm.warp_to(end_s - DAY_S)
    town.strips.split(month, ONE, MALLORY, sender=MALLORY)
    town.strips.activate(month, ONE, OPERATOR, MALLORY, sender=MALLORY)
    town.evm.warp_to(end_s)
    town.strips.redeem(month, ONE, MALLORY, sender=MALLORY)
    town.vault.stake(ONE, OPERATOR, MALLORY, sender=MALLORY)
    last = end_s // DAY_S - 1
    by_day = [
        (town.vault.allowanceOf(OPERATOR, MALLORY, day), town.strips.allowanceOf(OPERATOR, MALLORY, day))
        for day in (last, last + 1)
    ]
    assert by_day == [(0, ONE), (ONE, 0)]


@pytest.mark.parametrize("year", [2027, 2028, 2096, 2100])
def test_a_year_of_activated_strips_is_each_of_its_days_once(town: Freehold, year: int) -> None:
    """Leap years or not: 365 or 366 whole days, and not one around them."""
    january = (year - 1970) * 12
    town.evm.warp_to(calendar.first_day(january) * DAY_S)
    town.strips.split(january + 11, ONE, MALLORY, sender=MALLORY)
    for month in range(january, january + 12):
        town.strips.activate(month, ONE, OPERATOR, MALLORY, sender=MALLORY)
    first, after = calendar.first_day(january), calendar.first_day(january + 12)
    granted = [town.strips.allowanceOf(OPERATOR, MALLORY, day) for day in range(first - 1, after + 1)]
    assert granted == [0] + [ONE] * (after - first) + [0]
    assert after - first == (366 if year in (2028, 2096) else 365)
