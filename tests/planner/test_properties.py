"""Laws of sizes and costs, for any usage and any assumptions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from freehold.planner import sizing
from freehold.planner.alternatives import alternatives
from freehold.planner.flips import gain, thresholds
from freehold.planner.model import Assumptions, Commitment, Floats, OwnGpu

amounts = st.floats(0, 10_000, allow_subnormal=False)
demands = st.lists(amounts, min_size=1, max_size=40).map(np.array)
some = st.builds(
    Assumptions,
    diem_price=st.floats(0.5, 2_000),
    horizon_days=st.integers(1, 400),
    discount_rate=st.floats(0, 0.5),
    hazard=st.floats(0, 5),
    resale=st.floats(0, 1.2),
    fee=st.floats(0, 0.1),
    unbonding_days=st.integers(0, 30),
    rent_ratio=st.floats(0.35, 1.5),
    lease=st.floats(0, 0.3),
    lease_depth=st.none() | st.floats(0, 5_000),
    budget=st.none() | st.floats(0, 1e6),
    demand_growth=st.just(0.0) | st.floats(-0.5, 0.5),
)
close = {"rel": 1e-6, "abs": 1e-4}


def costing(assumed: Assumptions, ratio: float) -> Assumptions:
    """The same, with the price of DIEM at which κ = l + ratio · (q' − l)."""
    given = replace(assumed, resale=min(assumed.resale, 0.99))
    wanted = given.lease + ratio * (given.overflow_price - given.lease)
    return replace(given, diem_price=given.diem_price * wanted / sizing.carry(given))


@given(demands, some, st.floats(1, 5))
def test_dearer_diem_never_raise_the_size(demand: Floats, assumed: Assumptions, times: float) -> None:
    dearer = replace(assumed, diem_price=assumed.diem_price * times)
    assert sizing.best_size(demand, dearer).diem <= sizing.best_size(demand, assumed).diem * (1 + 1e-9)


@given(demands, some, st.floats(0, 1))
def test_more_idle_income_never_lowers_the_size(demand: Floats, assumed: Assumptions, share: float) -> None:
    more = replace(assumed, lease=assumed.lease + share * (assumed.overflow_price - assumed.lease))
    assert sizing.best_size(demand, more).diem >= sizing.best_size(demand, assumed).diem * (1 - 1e-9)


@given(demands, some)
def test_a_platform_that_ends_at_once_means_rent(demand: Floats, assumed: Assumptions) -> None:
    doomed = replace(assumed, hazard=1e9)
    assert sizing.best_size(demand, doomed).diem == 0
    assert sizing.hold(0.0, demand, doomed) == pytest.approx(sizing.rent(demand, doomed), **close)


@given(st.floats(0.01, 10_000), st.integers(1, 40), some, st.floats(0.001, 0.999))
def test_constant_demand_is_held_whole_when_a_diem_day_costs_between_idle_income_and_the_call(
    demand: float, days: int, assumed: Assumptions, ratio: float
) -> None:
    assumed = costing(replace(assumed, budget=None, lease_depth=None, demand_growth=0.0), ratio)
    assert assumed.lease < sizing.carry(assumed) < assumed.overflow_price
    assert sizing.best_size(np.full(days, demand), assumed).diem == pytest.approx(demand)


@given(demands, some, st.floats(0, 20_000))
def test_no_size_costs_less_than_the_best_one(demand: Floats, assumed: Assumptions, other: float) -> None:
    best = sizing.best_size(demand, assumed)
    assume(best.cap == "")
    if assumed.budget is not None:
        other = min(other, assumed.budget / sizing.outlay_per_diem(assumed))
    at_best = sizing.hold(best.diem, demand, assumed)
    assert at_best <= sizing.hold(other, demand, assumed) + 1e-6 * max(1.0, abs(at_best))


@given(demands, some, st.floats(0, 100))
def test_the_rent_bill_does_not_depend_on_the_hazard(demand: Floats, assumed: Assumptions, hazard: float) -> None:
    assert sizing.rent(demand, replace(assumed, hazard=hazard)) == sizing.rent(demand, assumed)


@given(demands, some, st.floats(0.05, 2))
def test_falling_list_prices_never_raise_the_size(demand: Floats, assumed: Assumptions, fall: float) -> None:
    falling = replace(assumed, list_price_change=-fall)
    assert sizing.best_size(demand, falling).diem <= sizing.best_size(demand, assumed).diem * (1 + 1e-9) + 1e-12


@given(demands, some)
def test_the_budget_is_never_exceeded(demand: Floats, assumed: Assumptions) -> None:
    capped = replace(assumed, budget=1_000.0)
    assert sizing.best_size(demand, capped).diem * sizing.outlay_per_diem(capped) <= 1_000.0 * (1 + 1e-12)


ways = st.tuples(
    st.lists(st.builds(Commitment, discount=st.floats(0, 0.8), term_days=st.integers(30, 800)), max_size=1),
    st.lists(
        st.builds(
            OwnGpu,
            usd_per_hour=st.floats(0.1, 10),
            tokens_per_second=st.floats(10, 5_000),
            usd_per_million_tokens=st.floats(0.05, 10),
        ),
        max_size=1,
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 500, allow_subnormal=False), min_size=1, max_size=12).map(np.array), some, ways)
def test_a_mix_is_never_worse_than_the_best_of_its_parts(
    demand: Floats, assumed: Assumptions, offered: tuple[list[Commitment], list[OwnGpu]]
) -> None:
    found = {each.name: each.cost for each in alternatives(demand, assumed, *offered)}
    best = min(cost for name, cost in found.items() if name != "mix")
    assert found["mix"] <= best + 1e-6 * max(1.0, abs(best))
    assert found["by the call"] == pytest.approx(sizing.rent(demand, assumed), **close)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 500, allow_subnormal=False), min_size=1, max_size=12).map(np.array), some)
def test_the_programme_finds_what_the_closed_form_says_of_diem_alone(demand: Floats, assumed: Assumptions) -> None:
    best = sizing.best_size(demand, assumed)
    assume(best.cap != "demand")
    expected = sizing.hold(best.diem, demand, assumed)
    found = next(each for each in alternatives(demand, assumed) if each.name == "diem")
    assume(len(sizing.pooled(demand, sizing.weights(assumed))[0]) <= 400)
    assert found.cost == pytest.approx(expected, rel=1e-5, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1, 500), min_size=1, max_size=12).map(np.array), some, st.floats(0.01, 0.99))
def test_at_its_threshold_holding_costs_what_paying_by_the_call_does(
    demand: Floats, assumed: Assumptions, ratio: float
) -> None:
    assumed = costing(replace(assumed, budget=None), ratio)
    size = sizing.best_size(demand, assumed).diem
    assert size > 0
    found = {each.name: each.flips_at for each in thresholds(size, demand, assumed, "USD")}
    scale = 1e-6 * max(1.0, size * assumed.diem_price, sizing.rent(demand, assumed))
    price, hazard, cut = found["diem_price"], found["hazard"], found["list_price_cut"]
    if price is not None and price <= 1e9:
        assert abs(gain(size, demand, replace(assumed, diem_price=price))) <= scale * max(1.0, price)
    if hazard is not None and hazard < 1e6:
        assert abs(gain(size, demand, replace(assumed, hazard=hazard))) <= scale * 10
    if cut is not None:
        assert abs(gain(size, demand * (1 - cut), assumed)) <= scale * 10


@given(demands, some, st.floats(0, 10_000))
def test_what_the_utilisation_says_of_a_size_is_what_its_cost_says(
    demand: Floats, assumed: Assumptions, size: float
) -> None:
    """gain(N) = N · Σ β S · (value of a DIEM-day at its utilisation − κ), with a lease market of any depth."""
    assumed = replace(assumed, lease_depth=None)
    over = sizing.weights(assumed)
    assume(over.served > 1e-6 and size > 1e-6)
    used = sizing.utilisation(size, demand, over)
    told = size * (over.served * sizing.value_per_day(used, assumed) - sizing.lost_per_diem(assumed, over))
    assert gain(size, demand, assumed) == pytest.approx(told, rel=1e-6, abs=1e-5 * max(1.0, size * assumed.diem_price))
