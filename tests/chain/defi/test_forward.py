"""The forward curve against the formula it stands for, computed here by summing days, and what it leaves out."""

import math
from decimal import Decimal

import pytest

from freehold.chain.defi import prices
from freehold.chain.defi.forward import curve
from freehold.chain.defi.model import Pool
from freehold.chain.defi.pools import State
from freehold.clock import DAY_S, Month

USDC = "0x" + "11" * 20
NOVEMBER = Month.parse("2026-11")
NOW_S = NOVEMBER.start_s + 10 * DAY_S + DAY_S // 2
LEFT = Decimal("19.5")
"""Days of November."""


def pool(symbol: str, usd: Decimal, *, at_s: int = NOW_S, base: str = "0x" + "22" * 20) -> State:
    first = int(base, 16) < int(USDC, 16)
    amounts = (10**24, prices.usdc_for(10**24, usd))
    root = prices.root_price(*(amounts if first else amounts[::-1]))
    return State(symbol, Pool("0x" + "33" * 20, base, 3_000), USDC, root, 0, 0, at_s)


def fair(*, at_s: int = NOW_S) -> list[State]:
    """Pools at which a DIEM, its strips and its principal yield the same."""
    ends = (LEFT, LEFT + 31, LEFT + 62)
    begins = (Decimal(0), *ends[:2])
    strips = [
        pool(f"DIEM-{month}", prices.strip_usd(begin, end), at_s=at_s)
        for month, begin, end in zip(("2026-11", "2026-12", "2027-01"), begins, ends, strict=True)
    ]
    principal = pool("pDIEM-2027-01", prices.principal_usd(ends[2]), at_s=at_s)
    return [pool("DIEM", Decimal(prices.DIEM_USD), at_s=at_s), principal, *reversed(strips)]


def test_at_one_yield_every_part_is_worth_what_it_must_and_all_together_a_diem() -> None:
    found = curve(fair())
    assert round(found.diem, 6) == prices.DIEM_USD
    assert [str(each.month) for each in found.strips] == ["2026-11", "2026-12", "2027-01"]
    assert [each.days for each in found.strips] == [LEFT, 31, 31]
    for each in (*found.strips, *found.principals):
        assert abs(each.usd / each.fair - 1) < Decimal("1e-6")
    (parts,) = found.parts
    assert parts.principal == "pDIEM-2027-01"
    assert abs(parts.usd - found.diem) < Decimal("1e-5")


def test_a_strip_is_worth_the_sum_of_its_days() -> None:
    """Day by day in small steps, without the formula."""
    steps, price = 1_000, 183.0
    for each in curve(fair()).strips:
        width = float(each.days) / steps
        summed = sum(width * math.exp(-(float(each.begins) + (n + 0.5) * width) / price) for n in range(steps))
        assert float(each.fair) == pytest.approx(summed, rel=1e-6)
        assert float(each.per_credit) == pytest.approx(summed / float(each.days), rel=1e-6)


def test_what_is_dearer_than_its_yield_is_told_apart() -> None:
    states = fair()
    dear = pool("DIEM-2026-12", 2 * curve(states).strips[1].usd)
    found = curve([*(state for state in states if state.symbol != dear.symbol), dear])
    assert [round(each.usd / each.fair, 4) for each in found.strips] == [1, 2, 1]
    assert found.parts[0].usd > found.diem + 20


def test_a_month_that_is_over_has_no_price_and_its_parts_go_on() -> None:
    later = NOVEMBER.end_s
    found = curve(fair(at_s=later))
    assert [str(each.month) for each in found.strips] == ["2026-12", "2027-01"]
    assert (found.strips[0].begins, found.strips[0].days) == (0, 31)
    assert len(found.parts) == 1  # from December on they are all of a split's parts
    assert found.principals[0].matures == 62


def test_parts_are_only_counted_where_every_month_has_a_pool() -> None:
    without = [state for state in fair() if state.symbol != "DIEM-2026-12"]
    assert curve(without).parts == ()
    assert curve([fair()[0]]).strips == ()


def test_it_is_the_same_whichever_token_is_first() -> None:
    first = curve([pool("DIEM", Decimal(200), base="0x" + "00" * 19 + "01")])
    assert round(first.diem, 6) == 200
