"""A position's lines and sums, from facts made up here: faces, values, credit, yields, and that everything adds up."""

from dataclasses import replace
from fractions import Fraction

import pytest

from freehold.chain.defi.credit import Book, Health
from freehold.chain.defi.lending import Account
from freehold.chain.position import Facts, Kind, Part, Pooled, Source, parts, totals
from freehold.chain.series import Activation, Dated, Series
from freehold.chain.verbs import Positions, Request, Stake
from freehold.clock import DAY_S, Day, Month

ONE, USD = 10**18, 10**6
ME, OTHER, HERE = "0x" + "11" * 20, "0x" + "22" * 20, "0x" + "33" * 20
NOON_S = Day.parse("2027-01-15").start_s + DAY_S // 2
JANUARY, FEBRUARY, MARCH = (Month.parse(text) for text in ("2027-01", "2027-02", "2027-03"))
NOTHING = Positions(ME, NOON_S, 0, 0, 0, 0, 0, 0, (), ())
PRICES = {"USDC": Fraction(1), "DIEM": Fraction(200), "DIEM-2027-02": Fraction(25), "pDIEM-2027-03": Fraction(150)}


def facts(has: Positions = NOTHING, **more: object) -> Facts:
    plain = Facts(
        now_s=NOON_S,
        positions=has,
        dated=Dated(ME, NOON_S, (), ()),
        earned=0,
        emission_per_second=ONE,
        total_staked=1_000 * ONE,
        prices=PRICES,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def the(found: list[Part], kind: Kind) -> Part:
    (part,) = [each for each in found if each.kind is kind]
    return part


def series(month: Month, strips: int = 0, principal: int = 0) -> Dated:
    return Dated(ME, NOON_S, (Series(month, HERE, HERE, strips, principal),), ())


def account(*, supplied: int = 0, debt: int = 0, collateral: int = 0, symbol: str = "DIEM") -> Account:
    book = Book(1_000 * USD, 1_000 * USD * 10**6, 500 * USD, 500 * USD * 10**6, NOON_S, 0, rate=3_170_979_198)
    return Account(
        ME, symbol, NOON_S, supplied, supplied, debt, Health(collateral, debt, 200 * 10**24, 77 * 10**16), book
    )


def test_tokens_in_the_wallet_are_worth_what_their_pools_say() -> None:
    found = parts(facts(replace(NOTHING, hold=5 * ONE, diem=2 * ONE, usdc=3 * USD)))
    assert [(part.token, part.face, part.face_unit, part.market_cents) for part in found] == [
        ("HOLD", 5 * ONE, "HOLD", None),
        ("DIEM", 2 * ONE, "DIEM", 400_00),
        ("USDC", 3 * USD, "USDC", 3_00),
    ]


def test_without_pools_nothing_has_a_market_value() -> None:
    found = parts(facts(replace(NOTHING, diem=ONE, stakes=(Stake(HERE, ME, ONE),)), prices={}))
    assert [part.market_cents for part in found] == [None, None]
    assert totals(found, ME).market_cents == 0
    assert totals(found, ME).without_market == ("DIEM",)
    assert the(found, Kind.STAKED).yearly is None
    assert the(found, Kind.STAKED).daily == ONE


def test_staked_diem_pays_a_dollar_a_day_each_to_whom_it_is_for() -> None:
    has = replace(NOTHING, stakes=(Stake(HERE, ME, 3 * ONE), Stake(HERE, OTHER, ONE)))
    found = parts(facts(has))
    assert [(part.daily, part.beneficiary, part.source) for part in found] == [
        (3 * ONE, ME, Source.INFERENCE),
        (ONE, OTHER, Source.INFERENCE),
    ]
    assert found[0].yearly == pytest.approx(365 / 200)
    summed = totals(found, ME)
    assert (summed.daily, summed.daily_of_others) == (4 * ONE, ONE)


def test_locked_hold_earns_four_fifths_of_what_the_rest_earns() -> None:
    found = parts(facts(replace(NOTHING, staked_hold=500 * ONE, locked_hold=200 * ONE)))
    free, locked = found
    assert (free.amount, locked.amount) == (300 * ONE, 200 * ONE)
    assert free.yearly == pytest.approx(365 * DAY_S / 1_000)
    assert locked.yearly == pytest.approx(0.8 * free.yearly)
    assert {part.source for part in found} == {Source.EMISSION}


def test_what_is_on_its_way_out_keeps_its_value_and_earns_nothing() -> None:
    has = replace(NOTHING, requests=(Request("DIEM", 7, ONE, NOON_S + 9),))
    part = the(parts(facts(has)), Kind.UNBONDING)
    assert (part.market_cents, part.daily, part.yearly, part.id, part.ready_at_s) == (200_00, 0, None, 7, NOON_S + 9)


def test_a_strip_is_good_for_a_dollar_on_each_day_that_is_left_of_its_month() -> None:
    running = the(parts(facts(dated=series(JANUARY, strips=2 * ONE))), Kind.STRIPS)
    assert (running.face, running.face_unit, running.market_cents) == (33 * ONE, "USD", None)  # 16.5 days
    coming = the(parts(facts(dated=series(FEBRUARY, strips=2 * ONE))), Kind.STRIPS)
    assert (coming.face, coming.market_cents, coming.daily, coming.source) == (56 * ONE, 50_00, 0, Source.DISCOUNT)
    middle_days = 16.5 + 14
    assert coming.yearly == pytest.approx((56 / 50) ** (365 / middle_days) - 1)


def test_a_strip_of_a_month_that_is_over_is_worth_nothing() -> None:
    part = the(parts(facts(dated=series(Month.parse("2026-12"), strips=ONE))), Kind.STRIPS)
    assert (part.face, part.market_cents, part.yearly, part.source) == (0, 0, None, None)


def test_a_principal_is_a_diem_that_comes_later() -> None:
    part = the(parts(facts(dated=series(MARCH, principal=2 * ONE))), Kind.PRINCIPAL)
    assert (part.face, part.face_unit, part.market_cents) == (2 * ONE, "DIEM", 300_00)
    days = (MARCH.end_s - NOON_S) / DAY_S
    assert part.yearly == pytest.approx((200 / 150) ** (365 / days) - 1)


def test_a_principal_that_can_be_redeemed_is_worth_a_diem() -> None:
    part = the(parts(facts(dated=series(Month.parse("2026-12"), principal=ONE))), Kind.PRINCIPAL)
    assert (part.market_cents, part.yearly, part.source) == (200_00, None, None)


def test_activated_strips_are_daily_credit_from_their_months_first_day_to_its_last() -> None:
    lease = Dated(ME, NOON_S, (), (Activation(JANUARY, HERE, OTHER, ONE), Activation(FEBRUARY, HERE, ME, ONE)))
    running, coming = parts(facts(dated=lease))
    assert (running.daily, running.face, running.market_cents) == (ONE, 33 * ONE // 2, None)
    assert (coming.daily, coming.face) == (0, 28 * ONE)
    last_day_s = JANUARY.end_s - DAY_S // 2
    running, coming = parts(facts(dated=lease, now_s=last_day_s))
    assert (running.daily, coming.daily) == (0, ONE)  # from the next 00:00 on
    assert [part.token for part in parts(facts(dated=lease, now_s=JANUARY.end_s))] == ["DIEM-2027-02"]


def test_a_pools_fees_are_its_yield_on_both_tokens_and_need_a_day_to_tell() -> None:
    sides = (
        Pooled(4, "DIEM", 10 * ONE, ONE // 10, NOON_S - 10 * DAY_S),
        Pooled(4, "USDC", 2_000 * USD, 20 * USD, NOON_S - 10 * DAY_S),
    )
    found = parts(facts(pooled=sides))
    assert [(part.token, part.amount, part.market_cents, part.id) for part in found] == [
        ("DIEM", 10 * ONE + ONE // 10, 2_020_00, 4),
        ("USDC", 2_020 * USD, 2_020_00, 4),
    ]
    assert [part.yearly for part in found] == pytest.approx([40 / 4_000 * 36.5] * 2)
    young = parts(facts(pooled=tuple(replace(side, since_s=NOON_S - 60) for side in sides)))
    unclear = parts(facts(pooled=tuple(replace(side, since_s=0) for side in sides)))
    assert {part.yearly for part in (*young, *unclear)} == {None}


def test_a_debt_counts_against_the_sum_and_costs_interest() -> None:
    mine = (account(supplied=100 * USD, debt=500 * USD, collateral=10 * ONE),)
    found = parts(facts(accounts=mine))
    lent, pledged, owed = found
    assert (lent.market_cents, pledged.market_cents, owed.market_cents) == (100_00, 2_000_00, 500_00)
    assert owed.yearly == pytest.approx(-0.1051, abs=1e-3)  # 10 % a year, compounded
    assert lent.yearly == pytest.approx(0.1051 / 2, abs=1e-3)  # half of what is lent is borrowed
    assert (lent.source, owed.source, pledged.source) == (Source.INTEREST, Source.INTEREST, None)
    summed = totals(found, ME)
    assert summed.market_cents == 100_00 + 2_000_00 - 500_00
    assert summed.face == {"USDC": -400 * USD, "DIEM": 10 * ONE}


def test_a_pledged_principal_goes_on_to_mature() -> None:
    part = the(parts(facts(accounts=(account(collateral=2 * ONE, symbol="pDIEM-2027-03"),))), Kind.PLEDGED)
    assert (part.face_unit, part.face, part.market_cents, part.source) == ("DIEM", 2 * ONE, 300_00, Source.DISCOUNT)
    assert part.yearly is not None and part.yearly > 0


def test_sums_are_of_the_lines() -> None:
    has = Positions(
        ME, NOON_S, ONE // 3, 7, 5, 0, ONE // 7, 1_234_567, (Stake(HERE, ME, ONE // 9),), (Request("HOLD", 1, 11, 0),)
    )
    found = parts(
        facts(
            has,
            dated=series(FEBRUARY, strips=ONE // 11, principal=ONE // 13),
            earned=3,
            accounts=(account(debt=777_777, collateral=ONE // 17),),
        )
    )
    summed = totals(found, ME)
    assert summed.market_cents == sum(
        (-1 if p.owed else 1) * p.market_cents for p in found if p.market_cents is not None
    )
    for unit in summed.face:
        assert summed.face[unit] == sum((-1 if p.owed else 1) * p.face for p in found if p.face_unit == unit)
    assert [p.kind for p in found] == sorted((p.kind for p in found), key=list(Kind).index)
