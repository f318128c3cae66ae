"""What flips a decision, what could go wrong, and what there is besides."""

from dataclasses import replace

import numpy as np
import pytest

from freehold.clock import Day
from freehold.planner import flips, online, sizing, stress
from freehold.planner.alternatives import alternatives
from freehold.planner.model import Assumptions, Commitment, OwnGpu, Usage
from freehold.planner.planner import plan, regret

GIVEN = Assumptions(diem_price=100.0, fee=0.0, hazard=0.0, discount_rate=0.0, resale=0.0, horizon_days=200, paths=200)
"""κ = 0.5."""

STEADY = np.full(28, 10.0)
HALF = np.repeat([10.0, 0.0], 14)
"""Used every second day: what a DIEM-day costs is just what it brings."""


def flip(name: str, size: float, demand: np.ndarray, given: Assumptions) -> float | None:  # type: ignore[type-arg]
    return next(each.flips_at for each in flips.thresholds(size, demand, given, "USD") if each.name == name)


def test_the_thresholds_of_a_steady_workload_are_known() -> None:
    assert sizing.carry(GIVEN) == pytest.approx(0.5)
    assert flip("utilisation", 10, STEADY, GIVEN) == pytest.approx(0.5)
    assert flip("diem_price", 10, STEADY, GIVEN) == pytest.approx(200.0)
    assert flip("list_price_cut", 10, STEADY, GIVEN) == pytest.approx(0.5)


def test_the_hazard_that_flips_halves_the_days_served() -> None:
    found = flip("hazard", 10, STEADY, GIVEN)
    assert found is not None
    assert sizing.carry(replace(GIVEN, hazard=found)) == pytest.approx(1.0)


def test_who_is_advised_to_rent_is_told_what_the_first_diem_would_need() -> None:
    dear = replace(GIVEN, diem_price=300.0)
    assert flip("diem_price", 0, STEADY, dear) == pytest.approx(200.0)
    assert flip("diem_price", 0, HALF, dear) == pytest.approx(100.0)
    assert flip("list_price_cut", 0, STEADY, dear) is None
    assert flip("hazard", 0, STEADY, replace(dear, hazard=0.5)) is None
    cheap = replace(GIVEN, diem_price=150.0, hazard=5.0)
    found = flip("hazard", 0, STEADY, cheap)
    assert found is not None
    assert sizing.carry(replace(cheap, hazard=found)) == pytest.approx(1.0, rel=1e-4)


def test_the_nearest_threshold_needs_the_least_change() -> None:
    close = plan(Usage(Day(20_000), STEADY), replace(GIVEN, diem_price=190.0))
    assert close.threshold.name in ("diem_price", "utilisation", "list_price_cut")
    assert close.threshold.sentence in close.sentence


def test_the_worst_cases_are_named_and_the_largest_loss_is_first() -> None:
    found = stress.worst_cases(10.0, STEADY, replace(GIVEN, resale=0.5, hazard=0.1))
    assert {each.name for each in found} == {
        "platform ends", "no resale", "thin market", "list prices halve", "usage stops", "quietest week", "usage doubles",
    }  # fmt: skip
    assert [each.loss for each in found] == sorted((each.loss for each in found), reverse=True)
    by_name = {each.name: each for each in found}
    assert by_name["platform ends"].loss == pytest.approx(10 * 100)
    assert by_name["usage stops"].rent_cost == 0
    assert by_name["no resale"].loss > by_name["thin market"].loss
    assert by_name["usage doubles"].loss < 0


def test_each_risk_alone_is_nothing_when_its_cause_is_off() -> None:
    usage = Usage(Day(20_000), STEADY)
    off = replace(GIVEN, resale=0.5, volatility=0.0, stressed_exit=1.0, unbonding_days=0)
    parts = {each.name: each.cost for each in stress.risks(10.0, usage, off)}
    assert list(parts) == ["demand", "price", "list price", "platform", "liquidity", "unbonding"]
    for name in ("demand", "price", "platform", "liquidity", "unbonding"):
        assert parts[name] == pytest.approx(0, abs=1e-6), name
    assert parts["list price"] == pytest.approx(10 * 200 / 2)
    on = replace(GIVEN, resale=0.5, volatility=1.0, hazard=0.5, unbonding_days=5)
    told = stress.risks(10.0, Usage(Day(20_000), np.arange(28.0)), on)
    assert all(each.cost > 0 for each in told)
    assert sum(each.share for each in told) == pytest.approx(1)


def test_the_tornado_is_widest_first_and_moves_the_right_way() -> None:
    bars = stress.tornado(10.0, STEADY, replace(GIVEN, resale=0.5, hazard=0.2))
    assert [each.swing for each in bars] == sorted((each.swing for each in bars), reverse=True)
    by_name = {each.name: each for each in bars}
    for name in ("demand", "resale", "rent_ratio", "lease"):
        assert by_name[name].saving_at_high >= by_name[name].saving_at_low - 1e-6, name
    for name in ("diem_price", "hazard", "fee"):
        assert by_name[name].saving_at_high <= by_name[name].saving_at_low + 1e-6, name


def test_a_commitment_is_paid_to_the_end_of_its_term() -> None:
    found = {each.name: each for each in alternatives(STEADY, GIVEN, [Commitment(0.6, term_days=365, name="year")])}
    assert found["year"].cost == pytest.approx(min(0.4 * 365 * 10, 200 * 10))
    longer = {each.name: each for each in alternatives(STEADY, GIVEN, [Commitment(0.6, term_days=100, name="term")])}
    assert longer["term"].cost == pytest.approx(0.4 * 200 * 10)
    assert longer["term"].parts["term"] == pytest.approx(10)


def test_gpus_come_whole() -> None:
    gpu = OwnGpu(usd_per_hour=0.1, tokens_per_second=1_000, usd_per_million_tokens=0.05)
    assert gpu.usd_per_day == pytest.approx(2.4)
    assert gpu.serves_per_day == pytest.approx(4.32)
    found = {each.name: each for each in alternatives(STEADY, GIVEN, (), [gpu])}
    assert found["own GPU"].parts["own GPU"] in (pytest.approx(8.64), pytest.approx(12.96))
    assert found["own GPU"].cost == pytest.approx(min(2 * 2.4 + 1.36, 3 * 2.4) * 200)


def test_a_mix_can_beat_each_of_its_parts() -> None:
    demand = np.concatenate([np.full(7, 4.0), np.full(7, 10.0)])
    gpu = OwnGpu(usd_per_hour=0.05, tokens_per_second=1_000, usd_per_million_tokens=0.05)
    found = {each.name: each.cost for each in alternatives(demand, replace(GIVEN, diem_price=95.0), (), [gpu])}
    assert found["mix"] <= min(found.values())
    budget = replace(GIVEN, budget=500.0)
    both = {each.name: each for each in alternatives(STEADY, budget, [Commitment(0.3, 200, "deal")])}
    assert both["mix"].cost < min(each.cost for name, each in both.items() if name != "mix") - 1
    assert both["mix"].parts == pytest.approx({"diem": 5.0, "deal": 5.0})


def test_ways_of_the_same_name_are_told_apart() -> None:
    found = {each.name: each for each in alternatives(STEADY, GIVEN, [Commitment(0.3, 200), Commitment(0.6, 200)])}
    assert list(found["mix"].parts) == ["diem", "committed-use discount", "committed-use discount 2"]
    assert found["committed-use discount"].cost == pytest.approx(0.7 * 2_000)
    assert found["committed-use discount 2"].cost == pytest.approx(0.4 * 2_000)
    taken = {each.name: each.cost for each in alternatives(STEADY, GIVEN, [Commitment(0.6, 200, "diem")])}
    assert (taken["diem"], taken["diem 2"]) == (pytest.approx(1_000), pytest.approx(800))


def test_after_a_platforms_end_only_other_capacity_serves() -> None:
    doomed = replace(GIVEN, hazard=1e9)
    found = {each.name: each.cost for each in alternatives(STEADY, doomed, [Commitment(0.3, 200, "deal")])}
    assert found["deal"] == pytest.approx(0.7 * 10 * 200)
    assert found["diem"] == pytest.approx(10 * 200)


def test_many_days_are_grouped_without_moving_the_cost() -> None:
    rng = np.random.default_rng(4)
    days = rng.gamma(2.0, 5.0, 900)
    found = next(each for each in alternatives(days, GIVEN) if each.name == "diem")
    assert found.cost == pytest.approx(sizing.hold(sizing.best_size(days, GIVEN).diem, days, GIVEN), rel=1e-3)


def test_a_rule_is_recommended_by_how_much_is_known() -> None:
    few, many = regret(20, GIVEN), regret(40, GIVEN)
    assert (few.rule, few.ratio, few.threshold_days) == ("deterministic", 2.0, pytest.approx(100.0))
    assert (many.rule, many.ratio, many.ratio_if_right) == ("forecast-trusting", 3.0, 1.5)
    assert many.threshold_days == pytest.approx(50.0)
    assert many.source == online.PUROHIT


def test_a_provider_that_is_dearer_elsewhere_makes_the_overflow_cheaper_here() -> None:
    dear = replace(GIVEN, rent_ratio=1.5)
    assert sizing.rent(STEADY, dear) == pytest.approx(1.5 * 10 * 200)
    assert sizing.hold(0.0, STEADY, dear) == pytest.approx(10 * 200)


def test_lease_income_stops_at_the_markets_depth() -> None:
    leasing = replace(GIVEN, diem_price=40.0, lease=0.3)
    assert sizing.carry(leasing) == pytest.approx(0.2)
    assert sizing.best_size(STEADY, leasing) == sizing.Size(10.0, "demand")
    assert sizing.best_size(STEADY, replace(leasing, lease_depth=4.0)) == sizing.Size(14.0, "lease depth")
    assert sizing.best_size(STEADY, replace(leasing, lease_depth=4.0, budget=480.0)) == sizing.Size(12.0, "budget")
