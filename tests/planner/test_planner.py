"""A whole plan from usage and assumptions."""

import numpy as np
import pytest

from freehold.clock import Day
from freehold.planner.model import Assumptions, Choice, InvalidAssumption, Plan, Unit, Usage
from freehold.planner.planner import plan

FIRST = Day(20_000)


def usage(*demand: float, unit: Unit = Unit.USD) -> Usage:
    return Usage(FIRST, np.array(demand, dtype=np.float64), unit)


def steady(amount: float, days: int = 28) -> Usage:
    return Usage(FIRST, np.full(days, amount))


def test_a_steady_workload_is_held_whole_when_a_diem_day_is_cheap() -> None:
    made = plan(steady(40.0), Assumptions(diem_price=100.0, hazard=0.1, paths=200))
    assert made.decision is Choice.HOLD
    assert made.size == pytest.approx(40.0)
    assert made.saving > 0
    assert made.sentence.startswith("Hold 40.00 DIEM")


def test_diem_that_cost_more_than_they_serve_are_not_held() -> None:
    made = plan(steady(40.0), Assumptions(diem_price=1_000.0, resale=0.0, paths=200))
    assert (made.decision, made.size, made.saving, made.outlay) == (Choice.RENT, 0.0, 0.0, 0.0)
    assert made.sentence.startswith("Rent: hold no DIEM")


def made(**given: float) -> Plan:
    rng = np.random.default_rng(3)
    seen = Usage(FIRST, rng.gamma(2.0, 20.0, 60))
    return plan(seen, Assumptions(diem_price=183.0, **given))  # type: ignore[arg-type]


def test_scenarios_agree_with_the_closed_form() -> None:
    whole = made(hazard=0.5)
    for name in ("rent", "hold", "mixed"):
        line = whole.cost(name)
        rent = whole.cost("rent").expected
        assert abs(line.spread.mean - line.expected) < 0.02 * rent, name


def test_no_policy_is_cheaper_than_the_clairvoyant() -> None:
    whole = made(hazard=0.5)
    assert all(whole.cost("clairvoyant").spread.mean <= line.spread.mean for line in whole.costs)


def test_the_flows_of_a_policy_add_up_to_its_cost() -> None:
    whole = made(hazard=0.5, lease=0.1, demand_growth=0.3)
    for name in ("rent", "mixed"):
        months = [flow for flow in whole.flows if flow.policy == name]
        assert sum(flow.discounted for flow in months) == pytest.approx(whole.cost(name).expected)
        assert months[-1].npv == pytest.approx(-whole.cost(name).expected)


def test_the_liquidation_case_sells_nothing() -> None:
    whole = made(hazard=0.5, paths=200)
    without = made(hazard=0.5, resale=0.0, paths=200)
    assert whole.liquidation.carry == without.carry > whole.carry
    assert whole.liquidation.best_size == without.size < whole.size
    assert whole.liquidation.saving < without.saving


def test_a_series_without_prices_is_measured_in_its_mean_day() -> None:
    small = plan(usage(1.0, 2.0, 3.0, unit=Unit.RELATIVE), Assumptions(diem_price=100.0, paths=200))
    large = plan(usage(1e6, 2e6, 3e6, unit=Unit.RELATIVE), Assumptions(diem_price=100.0, paths=200))
    assert small.size == pytest.approx(large.size)
    assert small.unit is Unit.RELATIVE
    assert any("no prices" in warning for warning in small.provenance.warnings)


def test_a_budget_can_not_be_compared_with_usage_that_has_no_prices() -> None:
    with pytest.raises(InvalidAssumption, match="has no prices"):
        plan(usage(1.0, 2.0, unit=Unit.RELATIVE), Assumptions(diem_price=100.0, budget=5.0))


def test_fewer_than_fourteen_days_are_warned_of() -> None:
    assert any("fewer than 14 days" in each for each in plan(steady(1.0, 13), Assumptions(9.0)).provenance.warnings)
    assert not plan(steady(1.0, 14), Assumptions(9.0)).provenance.warnings


def test_every_assumption_is_listed_and_defaults_are_marked() -> None:
    whole = plan(steady(1.0), Assumptions(diem_price=9.0, hazard=0.3), stated=("diem_price", "hazard"))
    listed = {each.name: each for each in whole.assumed}
    assert not listed["hazard"].default
    assert listed["hazard"].value == 0.3
    assert listed["volatility"].default
    assert all(each.meaning for each in whole.assumed)


def test_the_same_seed_gives_the_same_plan() -> None:
    assert made(hazard=0.5, paths=300) == made(hazard=0.5, paths=300)


@pytest.mark.parametrize("name", ["hazard", "volatility", "fee", "horizon_days", "lease", "trust"])
def test_an_assumption_that_can_not_be_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidAssumption, match=name):
        Assumptions(diem_price=1.0, **{name: -1.0})  # type: ignore[arg-type]


def test_more_paths_than_fit_into_memory_are_refused() -> None:
    Assumptions(diem_price=1.0, paths=100_000)
    with pytest.raises(InvalidAssumption, match="at most 10,958 fit"):
        Assumptions(diem_price=1.0, horizon_days=3_650, paths=100_000)


def test_idle_credit_fetches_no_more_than_the_work_costs_elsewhere() -> None:
    with pytest.raises(InvalidAssumption, match="lease"):
        Assumptions(diem_price=1.0, rent_ratio=0.5, lease=0.6)


def test_a_budget_that_buys_nothing_is_the_reason_that_is_told() -> None:
    whole = plan(steady(40.0), Assumptions(diem_price=100.0, hazard=0.1, budget=0.0, paths=200))
    assert (whole.size, whole.size_cap) == (0.0, "budget")
    assert whole.sentence.endswith("The budget buys none.")


def test_a_workload_of_nothing_is_planned() -> None:
    whole = plan(steady(0.0), Assumptions(diem_price=100.0, paths=200))
    assert (whole.decision, whole.size, whole.saving) == (Choice.RENT, 0.0, 0.0)


def test_the_hazard_may_be_as_large_as_can_be() -> None:
    assert plan(steady(40.0), Assumptions(diem_price=0.1, hazard=1e9, paths=200)).decision is Choice.RENT


def test_the_size_curve_and_the_fans_meet_the_costs() -> None:
    whole = made(hazard=0.5, paths=500)
    at = whole.size_curve.diem.index(whole.size)
    assert whole.size_curve.hold[at] == pytest.approx(whole.cost("mixed").expected)
    assert min(whole.size_curve.hold) == pytest.approx(whole.cost("mixed").expected)
    rent, mixed = whole.fans
    assert rent.p50[-1] == pytest.approx(whole.cost("rent").spread.p50)
    assert len(mixed.p10) == len(mixed.days)
    assert all(low <= mid <= high for low, mid, high in zip(mixed.p10, mixed.p50, mixed.p90, strict=True))


def test_each_past_day_is_set_against_the_allowance() -> None:
    whole = made(hazard=0.5, paths=200)
    for day in whole.usage_days:
        assert day.used + day.overflow == pytest.approx(day.demand)
        assert day.used + day.idle == pytest.approx(whole.size)


def test_what_is_held_already_is_kept_when_nothing_is_changed() -> None:
    without = made(hazard=0.5, paths=200)
    kept = made(hazard=0.5, paths=200, held=without.size)
    assert without.cost("nothing").expected == pytest.approx(without.cost("rent").expected)
    assert kept.cost("nothing").expected < without.cost("mixed").expected
    assert kept.size == without.size
