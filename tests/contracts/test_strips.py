"""Strips: DIEM by the month. Split, merge, redeem, activate; the calendar; one allowance a day and never two."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts import calendar_oracle as calendar
from tests.contracts.evm import DAY_S, Contract, refused
from tests.contracts.freehold_chain import ALICE, BOB, CAROL, NOBODY, ONE, OPERATOR, Freehold, artifact

A, B, C = ALICE.address, BOB.address, CAROL.address
OTHER = "0x" + "0f" * 20
START = calendar.moment("2026-12-10 06:00")
DECEMBER, JANUARY, FEBRUARY, MARCH = (calendar.month(text) for text in ("2026-12", "2027-01", "2027-02", "2027-03"))
FIRST_OF_JANUARY = calendar.first_day(JANUARY)


@pytest.fixture
def winter(chain: Freehold) -> Freehold:
    """The 10th of December 2026, 06:00 UTC: A holds 100 DIEM, and there are two operators."""
    chain.give_diem(A, 100 * ONE)
    chain.diem.approve(chain.strips.address, 2**256 - 1, sender=A)
    chain.govern(chain.staking, "setCommitted", OTHER, 50 * ONE)
    chain.govern(chain.vault, "registerOperator", OTHER, "https://other.example", OTHER)
    chain.evm.warp_to(START)
    return chain


def allowances(chain: Freehold, operator: str, beneficiary: str, *days: int) -> list[int]:
    return [chain.strips.allowanceOf(operator, beneficiary, day) for day in days]


# ---- the calendar


def test_every_month_until_2400_begins_where_the_calendar_says(chain: Freehold) -> None:
    """Leap years with it: 2000 and 2400 are, 2100, 2200 and 2300 aren't."""
    for month in range(12 * (2401 - 1970)):
        first = calendar.first_day(month)
        assert chain.strips.firstDayOf(month) == first
        assert chain.strips.monthOf(first) == month
        if month:
            assert chain.strips.monthOf(first - 1) == month - 1


@settings(max_examples=2_000, deadline=None)
@given(day=st.integers(0, 2_900_000))
def test_every_day_is_in_the_calendars_month(deployed: Freehold, day: int) -> None:
    assert deployed.strips.monthOf(day) == calendar.month_of(day)


def test_a_month_ends_at_the_next_ones_first_midnight(chain: Freehold) -> None:
    assert chain.strips.endOf(calendar.month("2028-02")) == calendar.moment("2028-03-01 00:00")
    assert chain.strips.endOf(DECEMBER) == calendar.moment("2027-01-01 00:00")


def test_the_series_run_from_this_month_for_three_years(winter: Freehold) -> None:
    assert winter.strips.months() == (DECEMBER, DECEMBER + 35)
    winter.evm.warp_to(calendar.moment("2026-12-31 23:59") + 59)
    assert winter.strips.months() == (DECEMBER, DECEMBER + 35)
    winter.evm.warp(1)
    assert winter.strips.months() == (JANUARY, JANUARY + 35)


# ---- split


def test_a_split_gives_each_months_strip_and_the_last_ones_principal(winter: Freehold) -> None:
    winter.strips.split(FEBRUARY, 7, B, sender=A)
    for month in (DECEMBER, JANUARY, FEBRUARY):
        strip, principal = winter.series(month)
        assert (strip.balanceOf(B), strip.totalSupply()) == (7, 7)
        assert strip.symbol() == f"DIEM-{calendar.label(month)}"
        if month == FEBRUARY:
            assert (principal.balanceOf(B), principal.totalSupply()) == (7, 7)
    assert (winter.diem.balanceOf(A), winter.diem.balanceOf(winter.strips.address)) == (100 * ONE - 7, 7)


def test_a_split_says_what_it_did_and_which_series_it_created(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 7, B, sender=A)
    events = winter.evm.events()
    created = [dict(event.arguments) for event in events if event.name == "SeriesCreated"]
    strips = {month: winter.strips.seriesOf(month) for month in (DECEMBER, JANUARY)}
    assert created == [
        {"month": DECEMBER, "isPrincipal": False, "token": strips[DECEMBER][0]},
        {"month": JANUARY, "isPrincipal": False, "token": strips[JANUARY][0]},
        {"month": JANUARY, "isPrincipal": True, "token": strips[JANUARY][1]},
    ]
    split = next(event for event in events if event.name == "Split")
    assert dict(split.arguments) == {"owner": A, "month": JANUARY, "amount": 7, "to": B}
    winter.strips.split(JANUARY, 1, B, sender=A)
    assert not [event for event in winter.evm.events() if event.name == "SeriesCreated"]


def test_each_series_is_a_plain_token_with_a_name_of_its_own(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 10, A, sender=A)
    strip, principal = winter.series(JANUARY)
    assert (strip.name(), strip.symbol(), strip.decimals()) == ("DIEM strip 2027-01", "DIEM-2027-01", 18)
    assert (principal.name(), principal.symbol()) == ("DIEM principal 2027-01", "pDIEM-2027-01")
    assert (strip.series(), principal.series()) == ((JANUARY, False), (JANUARY, True))
    strip.transfer(B, 4, sender=A)
    principal.approve(B, 3, sender=A)
    principal.transferFrom(A, C, 3, sender=B)
    assert (strip.balanceOf(B), principal.balanceOf(C)) == (4, 3)
    with refused("ERC20InsufficientBalance", B, 4, 5):
        strip.transfer(A, 5, sender=B)


def test_only_strips_mints_and_burns_series(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 10, A, sender=A)
    strip, _ = winter.series(JANUARY)
    assert strip.STRIPS() == winter.strips.address
    with refused("NotStrips", A):
        strip.mint(A, 1, sender=A)
    with refused("NotStrips", A):
        strip.burn(A, 1, sender=A)
    implementation = Contract(winter.evm, artifact("Strip")["abi"], winter.strips.IMPLEMENTATION())
    with refused("NotStrips", A):
        implementation.mint(A, 1, sender=A)


def test_a_series_address_is_known_before_it_is_created(winter: Freehold) -> None:
    before = winter.strips.seriesOf(MARCH)
    winter.strips.split(MARCH, 1, A, sender=A)
    created = [event.arguments["token"] for event in winter.evm.events() if event.name == "SeriesCreated"]
    assert set(before) <= set(created)
    assert len({*winter.strips.seriesOf(MARCH), *winter.strips.seriesOf(JANUARY)}) == 4
    with refused("SafeCastOverflowedUintDowncast", 32, 2**32 + MARCH):
        winter.strips.seriesOf(2**32 + MARCH)


def test_a_split_is_of_something_and_to_a_month_that_has_a_series(winter: Freehold) -> None:
    with refused("ZeroAmount"):
        winter.strips.split(JANUARY, 0, A, sender=A)
    for month in (DECEMBER - 1, DECEMBER + 36, 2**255):
        with refused("MonthOutOfRange", month, DECEMBER, DECEMBER + 35):
            winter.strips.split(month, 1, A, sender=A)
    with refused("ERC20InvalidReceiver", NOBODY):
        winter.strips.split(JANUARY, 1, NOBODY, sender=A)
    with refused("ERC20InsufficientAllowance", winter.strips.address, 0, 1):
        winter.strips.split(JANUARY, 1, B, sender=B)
    with refused("ERC20InsufficientBalance", A, 100 * ONE, 100 * ONE + 1):
        winter.strips.split(JANUARY, 100 * ONE + 1, A, sender=A)


def test_thirty_six_months_can_be_split_at_once(winter: Freehold) -> None:
    winter.strips.split(DECEMBER + 35, ONE, A, sender=A)
    assert all(winter.series(DECEMBER + n)[0].balanceOf(A) == ONE for n in range(36))
    winter.strips.merge(DECEMBER + 35, ONE, A, sender=A)
    assert winter.diem.balanceOf(A) == 100 * ONE


# ---- merge and redeem


def test_a_merge_undoes_a_split(winter: Freehold) -> None:
    winter.strips.split(FEBRUARY, 7, A, sender=A)
    winter.strips.merge(FEBRUARY, 4, B, sender=A)
    merged = next(event for event in winter.evm.events() if event.name == "Merged")
    assert dict(merged.arguments) == {"owner": A, "month": FEBRUARY, "amount": 4, "to": B}
    assert winter.diem.balanceOf(B) == 4
    assert [winter.series(month)[0].balanceOf(A) for month in (DECEMBER, JANUARY, FEBRUARY)] == [3, 3, 3]
    assert winter.series(FEBRUARY)[1].totalSupply() == winter.diem.balanceOf(winter.strips.address) == 3


def test_a_merge_takes_the_strips_of_the_months_that_are_left_only(winter: Freehold) -> None:
    winter.strips.split(FEBRUARY, 7, A, sender=A)
    winter.series(DECEMBER)[0].transfer(C, 7, sender=A)
    with refused("ERC20InsufficientBalance", A, 0, 7):
        winter.strips.merge(FEBRUARY, 7, A, sender=A)
    winter.evm.warp_to(calendar.moment("2027-01-05 00:00"))
    winter.strips.merge(FEBRUARY, 7, A, sender=A)
    assert winter.diem.balanceOf(A) == 100 * ONE


def test_after_its_month_a_merge_is_a_redemption(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 7, A, sender=A)
    winter.evm.warp_to(calendar.moment("2027-01-01 00:00"))
    winter.strips.merge(DECEMBER, 3, A, sender=A)
    winter.strips.redeem(DECEMBER, 4, A, sender=A)
    assert winter.diem.balanceOf(A) == 100 * ONE
    assert winter.series(DECEMBER)[0].balanceOf(A) == 7  # worth nothing


def test_a_merge_without_the_parts_is_refused(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 7, A, sender=A)
    with refused("ZeroAmount"):
        winter.strips.merge(JANUARY, 0, A, sender=A)
    with refused("MonthOutOfRange", DECEMBER + 36, DECEMBER, DECEMBER + 35):
        winter.strips.merge(DECEMBER + 36, 1, A, sender=A)
    with refused("UnknownSeries", FEBRUARY):
        winter.strips.merge(FEBRUARY, 1, A, sender=A)
    winter.series(JANUARY)[1].transfer(B, 7, sender=A)
    with refused("ERC20InsufficientBalance", A, 0, 7):
        winter.strips.merge(JANUARY, 7, A, sender=A)
    with refused("ERC20InvalidReceiver", NOBODY):
        winter.series(JANUARY)[1].transfer(A, 7, sender=B)
        winter.strips.merge(JANUARY, 7, NOBODY, sender=A)


def test_principal_is_redeemed_one_to_one_from_its_months_end_to_the_second(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 7, A, sender=A)
    winter.series(JANUARY)[1].transfer(B, 5, sender=A)
    end = calendar.moment("2027-02-01 00:00")
    winter.evm.warp_to(end - 1)
    with refused("NotMatured", JANUARY, end, end - 1):
        winter.strips.redeem(JANUARY, 5, B, sender=B)
    winter.evm.warp(1)
    winter.strips.redeem(JANUARY, 5, C, sender=B)
    redeemed = next(event for event in winter.evm.events() if event.name == "Redeemed")
    assert dict(redeemed.arguments) == {"owner": B, "month": JANUARY, "amount": 5, "to": C}
    assert (winter.diem.balanceOf(C), winter.diem.balanceOf(winter.strips.address)) == (5, 2)


def test_a_redemption_beyond_what_one_has_is_refused(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 7, A, sender=A)
    winter.evm.warp_to(calendar.moment("2027-01-01 00:00"))
    with refused("ZeroAmount"):
        winter.strips.redeem(DECEMBER, 0, A, sender=A)
    with refused("ERC20InsufficientBalance", A, 7, 8):
        winter.strips.redeem(DECEMBER, 8, A, sender=A)
    with refused("UnknownSeries", 3):
        winter.strips.redeem(3, 1, A, sender=A)
    with refused("MonthOutOfRange", 2**255, JANUARY, JANUARY + 35):
        winter.strips.redeem(2**255, 1, A, sender=A)


# ---- activate


def test_a_strip_of_this_month_grants_the_rest_of_today_and_each_later_day_of_it(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 8 * ONE, A, sender=A)
    winter.strips.activate(DECEMBER, 4 * ONE, OPERATOR, B, sender=A)
    today = winter.evm.today
    assert allowances(winter, OPERATOR, B, today - 1, today, today + 1) == [0, 3 * ONE, 4 * ONE]
    assert allowances(winter, OPERATOR, B, FIRST_OF_JANUARY - 1, FIRST_OF_JANUARY) == [4 * ONE, 0]
    assert winter.strips.totalAllowance(OPERATOR, today + 1) == 4 * ONE
    assert winter.strips.positionOf(A, DECEMBER, OPERATOR, B) == winter.strips.activatedOf(DECEMBER) == 4 * ONE
    assert winter.series(DECEMBER)[0].totalSupply() == 4 * ONE


def test_an_activation_says_so_in_the_vaults_words(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 8 * ONE, A, sender=A)
    winter.strips.activate(DECEMBER, 4 * ONE, OPERATOR, B, sender=A)
    by_name = {event.name: event for event in winter.evm.events()}
    assert dict(by_name["Activated"].arguments) == {
        "owner": A,
        "month": DECEMBER,
        "amount": 4 * ONE,
        "operator": OPERATOR,
        "beneficiary": B,
        "position": 4 * ONE,
    }
    changed = by_name["AllowanceChanged"]
    assert changed.address == winter.strips.address
    assert dict(changed.arguments) == {
        "operator": OPERATOR,
        "beneficiary": B,
        "day": winter.evm.today,
        "today": 3 * ONE,
        "onward": 4 * ONE,
    }


def test_a_strip_of_a_coming_month_grants_from_its_first_midnight_and_not_before(winter: Freehold) -> None:
    winter.strips.split(FEBRUARY, 5, A, sender=A)
    winter.strips.activate(JANUARY, 5, OPERATOR, B, sender=A)
    changed = next(event for event in winter.evm.events() if event.name == "AllowanceChanged")
    assert dict(changed.arguments) == {
        "operator": OPERATOR,
        "beneficiary": B,
        "day": FIRST_OF_JANUARY,
        "today": 5,
        "onward": 5,
    }
    last = calendar.first_day(FEBRUARY) - 1
    days = (winter.evm.today, FIRST_OF_JANUARY - 1, FIRST_OF_JANUARY, last, last + 1)
    assert allowances(winter, OPERATOR, B, *days) == [0, 0, 5, 5, 0]
    winter.evm.warp_to(FIRST_OF_JANUARY * DAY_S)
    assert allowances(winter, OPERATOR, B, *days) == [0, 0, 5, 5, 0]


def test_both_months_of_a_split_activated_grant_one_allowance_a_day_and_not_two(winter: Freehold) -> None:
    winter.strips.split(JANUARY, ONE, A, sender=A)
    winter.strips.activate(DECEMBER, ONE, OPERATOR, A, sender=A)
    winter.strips.activate(JANUARY, ONE, OPERATOR, A, sender=A)
    for day in range(winter.evm.today + 1, calendar.first_day(FEBRUARY)):
        assert winter.strips.allowanceOf(OPERATOR, A, day) == ONE
    assert winter.strips.allowanceOf(OPERATOR, A, winter.evm.today) == 3 * ONE // 4
    assert winter.strips.allowanceOf(OPERATOR, A, calendar.first_day(FEBRUARY)) == 0


def test_on_a_months_last_day_a_strip_grants_the_rest_of_it_only(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 4 * ONE, A, sender=A)
    winter.evm.warp_to(calendar.moment("2026-12-31 12:00"))
    winter.strips.activate(DECEMBER, 4 * ONE, OPERATOR, B, sender=A)
    last = FIRST_OF_JANUARY - 1
    assert allowances(winter, OPERATOR, B, last - 1, last, last + 1) == [0, 2 * ONE, 0]
    with refused("MonthOver", DECEMBER, FIRST_OF_JANUARY * DAY_S):
        winter.strips.redirectActivated(DECEMBER, 1, OPERATOR, B, OTHER, B, sender=A)


def test_the_29th_of_february_is_a_day_of_its_strip(chain: Freehold) -> None:
    leap, february = calendar.moment("2028-02-28 00:00"), calendar.month("2028-02")
    chain.give_diem(A, ONE)
    chain.diem.approve(chain.strips.address, ONE, sender=A)
    chain.evm.warp_to(leap)
    chain.strips.split(february, ONE, A, sender=A)
    chain.strips.activate(february, ONE, OPERATOR, A, sender=A)
    day = leap // DAY_S
    assert allowances(chain, OPERATOR, A, day, day + 1, day + 2) == [ONE, ONE, 0]
    chain.evm.warp_to(calendar.moment("2028-02-29 23:59"))
    with refused("NotMatured", february, calendar.moment("2028-03-01 00:00"), chain.evm.now_s):
        chain.strips.redeem(february, ONE, A, sender=A)
    chain.evm.warp(60)
    chain.strips.redeem(february, ONE, A, sender=A)


def test_a_strip_of_a_past_month_is_worth_nothing(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 5, A, sender=A)
    winter.evm.warp_to(calendar.moment("2027-01-01 00:00"))
    with refused("MonthOutOfRange", DECEMBER, JANUARY, JANUARY + 35):
        winter.strips.activate(DECEMBER, 5, OPERATOR, A, sender=A)


def test_an_activation_needs_strips_an_operator_and_a_beneficiary(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 5, A, sender=A)
    with refused("ZeroAmount"):
        winter.strips.activate(JANUARY, 0, OPERATOR, A, sender=A)
    with refused("ZeroAddress"):
        winter.strips.activate(JANUARY, 1, OPERATOR, NOBODY, sender=A)
    with refused("UnknownOperator", C):
        winter.strips.activate(JANUARY, 1, C, A, sender=A)
    with refused("ERC20InsufficientBalance", A, 5, 6):
        winter.strips.activate(JANUARY, 6, OPERATOR, A, sender=A)
    with refused("UnknownSeries", MARCH):
        winter.strips.activate(MARCH, 1, OPERATOR, A, sender=A)
    with refused("MonthOutOfRange", DECEMBER + 36, DECEMBER, DECEMBER + 35):
        winter.strips.activate(DECEMBER + 36, 1, OPERATOR, A, sender=A)


def test_stakes_and_strips_together_stay_within_what_an_operator_committed(winter: Freehold) -> None:
    winter.diem.approve(winter.vault.address, 2**256 - 1, sender=A)
    winter.vault.stake(30 * ONE, OTHER, A, sender=A)
    winter.strips.split(FEBRUARY, 40 * ONE, A, sender=A)
    winter.strips.activate(FEBRUARY, 15 * ONE, OTHER, A, sender=A)
    winter.strips.activate(JANUARY, 20 * ONE, OTHER, A, sender=A)
    with refused("BeyondCommitted", OTHER, 50 * ONE + 1, 50 * ONE):
        winter.strips.activate(JANUARY, 1, OTHER, A, sender=A)
    with refused("BeyondCommitted", OTHER, 50 * ONE + 1, 50 * ONE):
        winter.vault.stake(1, OTHER, A, sender=A)
    assert winter.vault.coverage(OTHER) == (50 * ONE, 50 * ONE)
    winter.evm.warp_to(calendar.moment("2027-01-31 00:00"))  # from tomorrow on, February counts
    winter.vault.stake(5 * ONE, OTHER, A, sender=A)
    assert (winter.vault.coverage(OTHER)[1], winter.strips.peakOf(OTHER)) == (50 * ONE, 15 * ONE)


def test_another_call_can_be_made_in_the_same_transaction(winter: Freehold) -> None:
    data = [
        winter.strips.split.data(JANUARY, 5, A),
        winter.strips.activate.data(DECEMBER, 5, OPERATOR, A),
        winter.strips.activate.data(JANUARY, 5, OPERATOR, A),
    ]
    winter.strips.multicall(data, sender=A)
    assert winter.strips.activatedOf(DECEMBER) == winter.strips.activatedOf(JANUARY) == 5


# ---- redirect


def test_a_redirect_takes_effect_at_the_next_midnight(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 4 * ONE, A, sender=A)
    winter.strips.activate(DECEMBER, 4 * ONE, OPERATOR, A, sender=A)
    winter.strips.redirectActivated(DECEMBER, ONE, OPERATOR, A, OTHER, B, sender=A)
    events = winter.evm.events()
    today = winter.evm.today
    assert allowances(winter, OPERATOR, A, today, today + 1, FIRST_OF_JANUARY) == [3 * ONE, 3 * ONE, 0]
    assert allowances(winter, OTHER, B, today, today + 1, FIRST_OF_JANUARY) == [0, ONE, 0]
    assert winter.strips.positionOf(A, DECEMBER, OPERATOR, A) == 3 * ONE
    assert winter.strips.positionOf(A, DECEMBER, OTHER, B) == ONE
    moved = next(event for event in events if event.name == "ActivatedRedirected")
    assert dict(moved.arguments) == {
        "owner": A,
        "month": DECEMBER,
        "amount": ONE,
        "operator": OPERATOR,
        "beneficiary": A,
        "newOperator": OTHER,
        "newBeneficiary": B,
    }
    changed = [dict(event.arguments) for event in events if event.name == "AllowanceChanged"]
    assert changed == [
        {"operator": OPERATOR, "beneficiary": A, "day": today, "today": 3 * ONE, "onward": 3 * ONE},
        {"operator": OTHER, "beneficiary": B, "day": today, "today": 0, "onward": ONE},
    ]


def test_a_redirect_of_a_coming_month_moves_all_of_it(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 5, A, sender=A)
    winter.strips.activate(JANUARY, 5, OPERATOR, A, sender=A)
    winter.evm.warp_to(FIRST_OF_JANUARY * DAY_S - 1)
    winter.strips.redirectActivated(JANUARY, 5, OPERATOR, A, OTHER, B, sender=A)
    assert allowances(winter, OPERATOR, A, FIRST_OF_JANUARY, FIRST_OF_JANUARY + 1) == [0, 0]
    assert allowances(winter, OTHER, B, FIRST_OF_JANUARY, FIRST_OF_JANUARY + 1) == [5, 5]


def test_only_the_owner_redirects_and_no_more_than_was_activated(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 5, A, sender=A)
    winter.strips.activate(JANUARY, 5, OPERATOR, B, sender=A)
    with refused("BeyondActivated", B, JANUARY, OPERATOR, B, 1, 0):
        winter.strips.redirectActivated(JANUARY, 1, OPERATOR, B, OTHER, B, sender=B)
    with refused("BeyondActivated", A, JANUARY, OPERATOR, B, 6, 5):
        winter.strips.redirectActivated(JANUARY, 6, OPERATOR, B, OTHER, B, sender=A)
    with refused("ZeroAmount"):
        winter.strips.redirectActivated(JANUARY, 0, OPERATOR, B, OTHER, B, sender=A)
    with refused("UnknownOperator", C):
        winter.strips.redirectActivated(JANUARY, 1, OPERATOR, B, C, B, sender=A)
    with refused("ZeroAddress"):
        winter.strips.redirectActivated(JANUARY, 1, OPERATOR, B, OTHER, NOBODY, sender=A)
    winter.govern(winter.staking, "setCommitted", OTHER, 4)
    with refused("BeyondCommitted", OTHER, 5, 4):
        winter.strips.redirectActivated(JANUARY, 5, OPERATOR, B, OTHER, B, sender=A)


def test_a_redirect_of_an_ended_month_is_refused(winter: Freehold) -> None:
    winter.strips.split(DECEMBER, 5, A, sender=A)
    winter.strips.activate(DECEMBER, 5, OPERATOR, A, sender=A)
    winter.evm.warp_to(calendar.moment("2027-01-03 00:00"))
    with refused("MonthOver", DECEMBER, FIRST_OF_JANUARY * DAY_S):
        winter.strips.redirectActivated(DECEMBER, 5, OPERATOR, A, OTHER, A, sender=A)


# ---- what could go wrong


def test_donated_diem_changes_nothing(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 5, A, sender=A)
    winter.diem.transfer(winter.strips.address, 50, sender=A)
    winter.strips.merge(JANUARY, 5, A, sender=A)
    assert winter.diem.balanceOf(A) == 100 * ONE - 50
    with refused("ERC20InsufficientBalance", A, 0, 1):
        winter.strips.merge(JANUARY, 1, A, sender=A)


def test_what_a_strip_granted_today_is_not_granted_again_by_its_diem(winter: Freehold) -> None:
    """A merge needs the strip that was burned; another's can be bought, and that one then grants nothing."""
    winter.strips.split(DECEMBER, ONE, A, sender=A)
    winter.strips.activate(DECEMBER, ONE, OPERATOR, A, sender=A)
    with refused("ERC20InsufficientBalance", A, 0, ONE):
        winter.strips.merge(DECEMBER, ONE, A, sender=A)


def test_the_tokens_of_strips_cannot_be_taken_by_another(winter: Freehold) -> None:
    winter.strips.split(JANUARY, 5, A, sender=A)
    for verb, month in (("merge", JANUARY), ("activate", JANUARY)):
        extra = (OPERATOR, B) if verb == "activate" else (B,)
        with refused("ERC20InsufficientBalance", B, 0, 5):
            getattr(winter.strips, verb)(month, 5, *extra, sender=B)


def test_it_names_the_contracts_that_it_works_with(winter: Freehold) -> None:
    assert winter.strips.DIEM() == winter.diem.address
    assert (winter.strips.VAULT(), winter.strips.STAKING()) == (winter.vault.address, winter.staking.address)
    assert winter.strips.MAX_SERIES() == 36
