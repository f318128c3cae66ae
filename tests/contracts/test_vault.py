"""CapacityVault: what a stake grants on which day, who may move it, and up to what an operator committed."""

import pytest
from tests.contracts import signatures
from tests.contracts.evm import DAY_S, Contract, Event, Signer, refused
from tests.contracts.freehold_chain import ALICE, BOB, COMMITTED, DEPLOYER, NOBODY, ONE, OPERATOR, Freehold, artifact

A, B = ALICE.address, BOB.address
OTHER = Signer.of("other operator").address
NOON_S = DAY_S // 2


@pytest.fixture
def noon(chain: Freehold) -> Freehold:
    """A and B hold 100 DIEM each, approved to the vault; two operators; 12:00 UTC."""
    for owner in (A, B):
        chain.give_diem(owner, 100 * ONE)
        chain.diem.approve(chain.vault.address, 2**256 - 1, sender=owner)
    chain.govern(chain.staking, "setCommitted", OTHER, 100 * ONE)
    chain.govern(chain.vault, "registerOperator", OTHER, "https://other.example", OTHER)
    chain.evm.warp_to(chain.evm.today * DAY_S + NOON_S)
    return chain


def days(chain: Freehold, operator: str, beneficiary: str, count: int = 3) -> list[int]:
    """The allowances of today and the days after."""
    return [chain.vault.allowanceOf(operator, beneficiary, chain.evm.today + n) for n in range(count)]


def changes(chain: Freehold) -> list[dict[str, object]]:
    return [dict(event.arguments) for event in chain.evm.events() if event.name == "AllowanceChanged"]


def only(events: list[Event], name: str) -> dict[str, object]:
    (event,) = (event for event in events if event.name == name)
    return dict(event.arguments)


def test_a_stake_grants_the_rest_of_the_day_and_each_later_day_in_full(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    assert only(noon.evm.events(), "Staked") == {
        "owner": A,
        "operator": OPERATOR,
        "beneficiary": B,
        "payer": A,
        "amount": 10 * ONE,
        "position": 10 * ONE,
    }
    assert changes(noon) == [
        {"operator": OPERATOR, "beneficiary": B, "day": noon.evm.today, "today": 5 * ONE, "onward": 10 * ONE}
    ]
    assert days(noon, OPERATOR, B) == [5 * ONE, 10 * ONE, 10 * ONE]
    assert noon.vault.allowanceOf(OPERATOR, B, noon.evm.today - 1) == 0
    assert noon.vault.totalAllowance(OPERATOR, noon.evm.today) == 5 * ONE
    assert noon.vault.positionOf(A, OPERATOR, B) == 10 * ONE
    assert noon.diem.balanceOf(noon.vault.address) == 10 * ONE
    assert noon.vault.today() == noon.evm.today


@pytest.mark.parametrize(("second", "granted"), [(0, 86_400), (1, 86_399), (86_399, 1)])
def test_the_rest_of_the_day_is_counted_in_seconds(noon: Freehold, second: int, granted: int) -> None:
    noon.evm.warp_to((noon.evm.today + 1) * DAY_S + second)
    noon.vault.stake(86_400, OPERATOR, A, sender=A)
    assert days(noon, OPERATOR, A, 2) == [granted, 86_400]


def test_a_part_of_a_wei_is_not_granted(noon: Freehold) -> None:
    noon.vault.stake(3, OPERATOR, A, sender=A)
    assert days(noon, OPERATOR, A, 2) == [1, 3]


def test_a_request_to_unstake_leaves_today_and_ends_with_it(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    request = noon.vault.requestUnstake(OPERATOR, B, 4 * ONE, sender=A)
    asked = only(noon.evm.events(), "UnstakeRequested")
    ready = noon.evm.now_s + DAY_S
    assert asked == {
        "id": request,
        "owner": A,
        "operator": OPERATOR,
        "beneficiary": B,
        "amount": 4 * ONE,
        "readyAt": ready,
        "position": 6 * ONE,
    }
    assert changes(noon)[0]["onward"] == 6 * ONE
    assert days(noon, OPERATOR, B) == [5 * ONE, 6 * ONE, 6 * ONE]
    assert noon.vault.requestOf(request) == (A, OPERATOR, B, 4 * ONE, noon.evm.now_s)


def test_a_withdrawal_waits_for_24_hours(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    request = noon.vault.requestUnstake(OPERATOR, B, 4 * ONE, sender=A)
    ready = noon.evm.now_s + DAY_S
    noon.evm.warp_to(ready - 1)
    with refused("StillCooling", request, ready, ready - 1):
        noon.vault.withdraw(request, sender=A)
    noon.evm.warp_to(ready)
    noon.vault.withdraw(request, sender=A)
    assert only(noon.evm.events(), "Withdrawn") == {"id": request, "owner": A, "amount": 4 * ONE}
    assert noon.diem.balanceOf(A) == 94 * ONE
    assert noon.vault.requestOf(request) == (NOBODY, NOBODY, NOBODY, 0, 0)
    with refused("UnknownRequest", request):
        noon.vault.withdraw(request, sender=A)


def test_a_later_request_delays_no_earlier_one(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, A, sender=A)
    first = noon.vault.requestUnstake(OPERATOR, A, 4 * ONE, sender=A)
    noon.evm.warp(DAY_S - 1)
    second = noon.vault.requestUnstake(OPERATOR, A, 4 * ONE, sender=A)
    noon.evm.warp(1)
    noon.vault.withdraw(first, sender=A)
    with refused("StillCooling", second, noon.evm.now_s - 1 + DAY_S, noon.evm.now_s):
        noon.vault.withdraw(second, sender=A)


def test_a_cancel_on_the_same_day_restores_the_next_days_only(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    request = noon.vault.requestUnstake(OPERATOR, B, 4 * ONE, sender=A)
    noon.evm.warp(NOON_S - 1)
    noon.vault.cancelUnstake(request, sender=A)
    assert only(noon.evm.events(), "UnstakeCancelled") == {
        "id": request,
        "owner": A,
        "operator": OPERATOR,
        "beneficiary": B,
        "amount": 4 * ONE,
        "position": 10 * ONE,
    }
    assert days(noon, OPERATOR, B) == [5 * ONE, 10 * ONE, 10 * ONE]


def test_a_cancel_on_a_later_day_also_grants_the_rest_of_that_day(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    request = noon.vault.requestUnstake(OPERATOR, B, 4 * ONE, sender=A)
    noon.evm.warp(DAY_S)
    assert days(noon, OPERATOR, B) == [6 * ONE, 6 * ONE, 6 * ONE]
    noon.vault.cancelUnstake(request, sender=A)
    assert days(noon, OPERATOR, B) == [8 * ONE, 10 * ONE, 10 * ONE]
    with refused("UnknownRequest", request):
        noon.vault.cancelUnstake(request, sender=A)


def test_a_request_is_its_owners_alone(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, B, sender=A)
    request = noon.vault.requestUnstake(OPERATOR, B, 4 * ONE, sender=A)
    noon.evm.warp(DAY_S)
    for verb in (noon.vault.cancelUnstake, noon.vault.withdraw):
        with refused("NotOwnRequest", request, A, B):
            verb(request, sender=B)


def test_a_redirect_takes_effect_at_the_next_midnight(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, A, sender=A)
    noon.vault.redirect(OPERATOR, A, OTHER, B, 4 * ONE, sender=A)
    assert only(noon.evm.events(), "Redirected") == {
        "owner": A,
        "operator": OPERATOR,
        "beneficiary": A,
        "newOperator": OTHER,
        "newBeneficiary": B,
        "amount": 4 * ONE,
        "position": 6 * ONE,
        "newPosition": 4 * ONE,
    }
    today = noon.evm.today
    assert changes(noon) == [
        {"operator": OPERATOR, "beneficiary": A, "day": today, "today": 5 * ONE, "onward": 6 * ONE},
        {"operator": OTHER, "beneficiary": B, "day": today, "today": 0, "onward": 4 * ONE},
    ]
    assert days(noon, OPERATOR, A) == [5 * ONE, 6 * ONE, 6 * ONE]
    assert days(noon, OTHER, B) == [0, 4 * ONE, 4 * ONE]


def test_a_stake_redirected_two_seconds_before_midnight_is_granted_by_one_operator_only(noon: Freehold) -> None:
    noon.evm.warp_to((noon.evm.today + 1) * DAY_S)
    noon.vault.stake(10 * ONE, OPERATOR, A, sender=A)
    noon.evm.warp(DAY_S - 2)
    noon.vault.redirect(OPERATOR, A, OTHER, A, 10 * ONE, sender=A)
    assert days(noon, OPERATOR, A) == [10 * ONE, 0, 0]
    assert days(noon, OTHER, A) == [0, 10 * ONE, 10 * ONE]


def test_a_redirect_to_the_same_place_changes_nothing(noon: Freehold) -> None:
    noon.vault.stake(10 * ONE, OPERATOR, A, sender=A)
    noon.vault.redirect(OPERATOR, A, OPERATOR, A, 4 * ONE, sender=A)
    assert days(noon, OPERATOR, A) == [5 * ONE, 10 * ONE, 10 * ONE]


def test_more_than_a_position_cant_be_moved_or_unstaked(noon: Freehold) -> None:
    noon.vault.stake(10, OPERATOR, A, sender=A)
    with refused("BeyondPosition", A, OPERATOR, A, 11, 10):
        noon.vault.requestUnstake(OPERATOR, A, 11, sender=A)
    with refused("BeyondPosition", A, OPERATOR, A, 11, 10):
        noon.vault.redirect(OPERATOR, A, OTHER, A, 11, sender=A)
    with refused("BeyondPosition", B, OPERATOR, A, 1, 0):
        noon.vault.requestUnstake(OPERATOR, A, 1, sender=B)


def test_nothing_is_no_amount(noon: Freehold) -> None:
    with refused("ZeroAmount"):
        noon.vault.stake(0, OPERATOR, A, sender=A)
    with refused("ZeroAmount"):
        noon.vault.requestUnstake(OPERATOR, A, 0, sender=A)
    with refused("ZeroAmount"):
        noon.vault.redirect(OPERATOR, A, OTHER, A, 0, sender=A)


def test_nobody_is_no_beneficiary_or_owner(noon: Freehold) -> None:
    with refused("ZeroAddress"):
        noon.vault.stake(1, OPERATOR, NOBODY, sender=A)
    with refused("ZeroAddress"):
        noon.vault.stakeFor(NOBODY, 1, OPERATOR, A, sender=A)
    noon.vault.stake(1, OPERATOR, A, sender=A)
    with refused("ZeroAddress"):
        noon.vault.redirect(OPERATOR, A, OPERATOR, NOBODY, 1, sender=A)


def test_an_operator_must_be_registered(noon: Freehold) -> None:
    with refused("UnknownOperator", B):
        noon.vault.stake(1, B, A, sender=A)
    noon.vault.stake(1, OPERATOR, A, sender=A)
    with refused("UnknownOperator", B):
        noon.vault.redirect(OPERATOR, A, B, A, 1, sender=A)


def test_a_stake_without_approval_is_refused(noon: Freehold) -> None:
    noon.diem.approve(noon.vault.address, 5, sender=A)
    with refused("ERC20InsufficientAllowance", noon.vault.address, 5, 6):
        noon.vault.stake(6, OPERATOR, A, sender=A)


def test_what_an_operator_committed_caps_what_is_staked_to_it(noon: Freehold) -> None:
    noon.vault.stake(99 * ONE, OTHER, A, sender=A)
    with refused("BeyondCommitted", OTHER, 100 * ONE + 1, 100 * ONE):
        noon.vault.stake(ONE + 1, OTHER, B, sender=B)
    noon.vault.stake(2 * ONE, OPERATOR, B, sender=B)
    with refused("BeyondCommitted", OTHER, 101 * ONE, 100 * ONE):
        noon.vault.redirect(OPERATOR, B, OTHER, B, 2 * ONE, sender=B)
    noon.vault.redirect(OPERATOR, B, OTHER, B, ONE, sender=B)
    assert noon.vault.coverage(OTHER) == (100 * ONE, 100 * ONE)
    assert noon.vault.coverage(OPERATOR) == (COMMITTED, ONE)


def test_a_cancel_doesnt_go_beyond_what_was_committed_either(noon: Freehold) -> None:
    noon.vault.stake(100 * ONE, OTHER, A, sender=A)
    request = noon.vault.requestUnstake(OTHER, A, 10 * ONE, sender=A)
    noon.vault.stake(5 * ONE, OTHER, B, sender=B)
    with refused("BeyondCommitted", OTHER, 105 * ONE, 100 * ONE):
        noon.vault.cancelUnstake(request, sender=A)
    noon.evm.warp(DAY_S)
    noon.vault.withdraw(request, sender=A)


def test_a_lower_commitment_leaves_what_is_staked_and_its_owners_free(noon: Freehold) -> None:
    noon.vault.stake(80 * ONE, OTHER, A, sender=A)
    noon.govern(noon.staking, "setCommitted", OTHER, 50 * ONE)
    with refused("BeyondCommitted", OTHER, 80 * ONE + 1, 50 * ONE):
        noon.vault.stake(1, OTHER, A, sender=A)
    noon.vault.redirect(OTHER, A, OTHER, B, 10 * ONE, sender=A)
    noon.vault.redirect(OTHER, A, OPERATOR, A, 30 * ONE, sender=A)
    noon.vault.requestUnstake(OTHER, A, 30 * ONE, sender=A)
    assert days(noon, OTHER, A, 2) == [40 * ONE, 10 * ONE]
    assert days(noon, OTHER, B, 2) == [0, 10 * ONE]


def test_a_stake_for_another_is_paid_by_the_caller_and_owned_by_the_other(noon: Freehold) -> None:
    noon.vault.stakeFor(B, 10 * ONE, OPERATOR, A, sender=A)
    staked = only(noon.evm.events(), "Staked")
    assert (staked["owner"], staked["payer"]) == (B, A)
    assert noon.vault.positionOf(B, OPERATOR, A) == 10 * ONE
    assert noon.diem.balanceOf(A) == 90 * ONE
    with refused("BeyondPosition", A, OPERATOR, A, ONE, 0):
        noon.vault.requestUnstake(OPERATOR, A, ONE, sender=A)
    noon.vault.requestUnstake(OPERATOR, A, ONE, sender=B)


class TestStakeWithPermit:
    @pytest.fixture
    def unapproved(self, noon: Freehold) -> Freehold:
        noon.diem.approve(noon.vault.address, 0, sender=A)
        return noon

    def signed(self, chain: Freehold, amount: int) -> tuple[object, ...]:
        deadline = chain.evm.now_s + 60
        return deadline, *ALICE.vrs(signatures.permit(chain.diem, A, chain.vault.address, amount, deadline))

    def test_it_needs_no_approval(self, unapproved: Freehold) -> None:
        unapproved.vault.stakeWithPermit(ONE, OPERATOR, B, *self.signed(unapproved, ONE), sender=A)
        assert unapproved.vault.positionOf(A, OPERATOR, B) == ONE
        assert unapproved.diem.allowance(A, unapproved.vault.address) == 0

    def test_it_goes_on_when_somebody_submitted_the_permit_first(self, unapproved: Freehold) -> None:
        permit = self.signed(unapproved, ONE)
        unapproved.diem.permit(A, unapproved.vault.address, ONE, *permit, sender=B)
        unapproved.vault.stakeWithPermit(ONE, OPERATOR, B, *permit, sender=A)
        assert unapproved.vault.positionOf(A, OPERATOR, B) == ONE

    def test_it_stakes_the_callers_diem_never_the_signers(self, unapproved: Freehold) -> None:
        unapproved.diem.approve(unapproved.vault.address, 0, sender=B)
        with refused("ERC20InsufficientAllowance", unapproved.vault.address, 0, ONE):
            unapproved.vault.stakeWithPermit(ONE, OPERATOR, B, *self.signed(unapproved, ONE), sender=B)


def test_a_multicall_does_all_or_nothing(noon: Freehold) -> None:
    vault: Contract = noon.vault
    vault.stake(10 * ONE, OPERATOR, A, sender=A)
    move = vault.redirect.data(OPERATOR, A, OTHER, A, 4 * ONE)
    leave = vault.requestUnstake.data(OPERATOR, A, 6 * ONE)
    with refused("BeyondPosition", A, OPERATOR, A, 4 * ONE, 0):
        vault.multicall([move, leave, move], sender=A)
    vault.multicall([move, leave], sender=A)
    assert vault.positionOf(A, OPERATOR, A) == 0
    assert vault.positionOf(A, OTHER, A) == 4 * ONE


def test_an_operator_is_registered_and_changed_by_the_timelock_alone(noon: Freehold) -> None:
    assert noon.vault.operatorOf(B) == ("", NOBODY)
    noon.govern(noon.vault, "registerOperator", B, "https://b.example", A)
    noon.govern(noon.vault, "registerOperator", B, "https://b2.example", B)
    assert only(noon.evm.events(), "OperatorChanged") == {
        "operator": B,
        "oldUrl": "https://b.example",
        "newUrl": "https://b2.example",
        "oldReceiptSigner": A,
        "newReceiptSigner": B,
    }
    assert noon.vault.operatorOf(B) == ("https://b2.example", B)
    with refused("NotTimelock", DEPLOYER):
        noon.vault.registerOperator(B, "", B, sender=DEPLOYER)
    for operator, signer in ((NOBODY, B), (B, NOBODY)):
        with refused("ZeroAddress"):
            noon.govern(noon.vault, "registerOperator", operator, "", signer)


def test_the_vault_takes_its_token_and_timelock_from_staking(noon: Freehold) -> None:
    vault = noon.evm.deploy(artifact("CapacityVault"), noon.staking.address, sender=DEPLOYER)
    assert (vault.STAKING(), vault.DIEM(), vault.TIMELOCK()) == (
        noon.staking.address,
        noon.diem.address,
        noon.timelock.address,
    )


def test_a_vote_of_small_stakes_cant_make_a_day_dear_to_read(noon: Freehold) -> None:
    """A stranger may add to a flow each day; finding a day in it takes the logarithm of their number."""
    for _ in range(300):
        noon.vault.stakeFor(A, 1, OPERATOR, A, sender=B)
        noon.evm.warp(DAY_S)
    noon.vault.stake(ONE, OPERATOR, A, sender=A)
    assert noon.evm.gas_used < 200_000
