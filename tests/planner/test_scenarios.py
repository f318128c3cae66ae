"""Scenario paths, what a size costs on each, and the size that minds the bad ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import coo_array

from freehold.clock import Day
from freehold.planner import risk, scenarios, sizing
from freehold.planner.model import YEAR_DAYS, Assumptions, Floats, Usage

GIVEN = Assumptions(diem_price=150.0, hazard=0.8, lease=0.1, paths=4_000, horizon_days=300, seed=7)


def history(days: int = 56, seed: int = 2) -> Usage:
    rng = np.random.default_rng(seed)
    weekday = np.arange(days) % 7
    return Usage(Day(20_000), np.where(weekday < 2, 1.0, 10.0) * rng.gamma(4.0, 1.0, days))


def test_on_average_paths_cost_what_the_closed_form_says() -> None:
    usage, whole_weeks = history(), replace(GIVEN, horizon_days=301)
    drawn = scenarios.draw(usage, whole_weeks)
    for size in (0.0, 20.0, 60.0):
        expected = sizing.hold(size, usage.demand, whole_weeks)
        noise = 4 * float(drawn.hold(size).std()) / np.sqrt(GIVEN.paths)
        assert abs(float(drawn.hold(size).mean()) - expected) < noise, size
    assert float(drawn.rent.mean()) == pytest.approx(sizing.rent(usage.demand, whole_weeks), rel=0.01)


def test_a_platforms_life_is_exponential_and_rent_goes_on_after_it() -> None:
    drawn = scenarios.draw(history(), GIVEN)
    for day in (30, 200):
        lives = float((drawn.alive_days >= day).mean())
        assert lives == pytest.approx(np.exp(-GIVEN.hazard * day / YEAR_DAYS), abs=0.03)
    safe = scenarios.draw(history(), replace(GIVEN, hazard=0.0))
    assert drawn.rent == pytest.approx(safe.rent)
    ended = drawn.alive_days < 300
    assert ended.any()
    assert (drawn.exit[ended] == 0).all()


def test_a_dead_platforms_path_costs_its_purchase_and_the_rent_of_the_days_after() -> None:
    usage = Usage(Day(20_000), np.full(28, 5.0))
    given = replace(GIVEN, discount_rate=0.0, lease=0.0, hazard=3.0)
    drawn = scenarios.draw(usage, given)
    lived = drawn.alive_days
    ended = lived < 300
    expected = 5.0 * sizing.outlay_per_diem(given) + 5.0 * (300 - lived[ended])
    assert drawn.hold(5.0)[ended] == pytest.approx(expected)


def test_prices_are_lognormal_around_what_resale_says() -> None:
    given = replace(GIVEN, resale=0.7, volatility=0.9)
    days = np.array([100.0, 301.0])
    found = scenarios.prices(given, days, 200_000, np.random.default_rng(1))
    assert found[:, 1].mean() == pytest.approx(0.7, rel=0.01)
    assert np.log(found[:, 0]).std() == pytest.approx(0.9 * np.sqrt(100 / YEAR_DAYS), rel=0.01)
    assert np.corrcoef(np.log(found).T)[0, 1] == pytest.approx(np.sqrt(100 / 301), abs=0.01)


@pytest.mark.parametrize("days", [14, 20, 28, 61])
def test_weekdays_keep_their_place_when_there_are_two_weeks(days: int) -> None:
    picked = scenarios.bootstrap(days, 40, 200, np.random.default_rng(1))
    assert picked.shape == (200, 40)
    assert ((picked - (days + np.arange(40))) % 7 == 0).all()
    assert len(np.unique(picked[:, 0])) == days // 7


def test_with_four_weeks_whole_weeks_are_drawn() -> None:
    picked = scenarios.bootstrap(35, 21, 100, np.random.default_rng(1))
    assert (np.diff(picked.reshape(100, 3, 7), axis=2) == 1).all()


def test_with_less_than_two_weeks_any_day_is_drawn() -> None:
    picked = scenarios.bootstrap(3, 50, 50, np.random.default_rng(1))
    assert set(np.unique(picked)) == {0, 1, 2}


def test_list_price_paths_scale_what_the_same_work_costs() -> None:
    usage = history()
    halved = scenarios.draw(usage, GIVEN, list_prices=np.full((GIVEN.paths, 300), 0.5))
    assert halved.rent == pytest.approx(scenarios.draw(usage, GIVEN).rent / 2)


@pytest.mark.parametrize("depth", [None, 3.0])
def test_costs_through_time_end_at_the_cost_of_the_horizon(depth: float | None) -> None:
    usage, assumed = history(), replace(GIVEN, unbonding_days=0, lease_depth=depth)
    drawn = scenarios.draw(usage, assumed)
    rented, held = drawn.through_time(25.0)
    assert drawn.mark_days[-1] == 300
    assert rented[:, -1] == pytest.approx(drawn.rent)
    assert held[:, -1] == pytest.approx(drawn.hold(25.0))


def test_a_shallow_lease_market_takes_no_more_than_its_depth() -> None:
    usage = Usage(Day(20_000), np.full(28, 5.0))
    given = replace(GIVEN, hazard=0.0, discount_rate=0.0, lease=0.2, lease_depth=3.0)
    deep = scenarios.draw(usage, replace(given, lease_depth=None)).hold(25.0)
    assert scenarios.draw(usage, given).hold(25.0) - deep == pytest.approx(0.2 * 17 * 300)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3]))
def test_the_clairvoyant_of_each_path_is_its_best_size(seed: int, lease: float) -> None:
    given = replace(GIVEN, paths=100, seed=seed, horizon_days=40, lease=lease)
    drawn = scenarios.draw(history(), given)
    most = float(drawn.demand.max())
    known, sizes = drawn.clairvoyant(most)
    tried = np.array([drawn.hold(float(size)) for size in np.linspace(0, most, 60)])
    busiest = drawn.demand.max(axis=1)
    within = np.linspace(0, most, 60)[:, None] <= busiest
    assert (np.where(within, tried, np.inf).min(axis=0) >= known - 1e-6).all()
    exact = [float(drawn.hold(float(size))[path]) for path, size in enumerate(sizes[:20])]
    assert known[:20] == pytest.approx(exact)


def programme(drawn: scenarios.Scenarios, weight: float, level: float, most: float) -> tuple[float, float]:
    """Size and value of the linear programme of Rockafellar and Uryasev (2000), with the days' overflow as variables."""
    given, days = drawn.given, drawn.over.discount
    paths, horizon = drawn.demand.shape
    alive = np.arange(horizon) < drawn.alive_days[:, None]
    path, day = np.nonzero(alive)
    cells = len(path)
    gain = given.overflow_price - given.lease
    slope = (
        sizing.outlay_per_diem(given)
        - given.diem_price * (1 - given.fee) * drawn.exit
        - given.lease * drawn.served
    )  # fmt: skip
    fixed = given.lease * drawn.served_demand + drawn.rent - given.rent_ratio * drawn.served_demand
    # variables: N, t, z of each path, overflow of each day alive; cost = slope N + gain Σ β o + fixed
    number = 2 + paths + cells
    objective = np.zeros(number)
    objective[0] = slope.mean()
    objective[1] = weight
    objective[2 : 2 + paths] = weight / ((1 - level) * paths)
    objective[2 + paths :] = gain * days[day] / paths
    rows = np.arange(cells)
    above = coo_array(
        (np.full(2 * cells, -1.0), (np.tile(rows, 2), np.concatenate([np.zeros(cells, int), 2 + paths + rows]))),
        shape=(cells, number),
    )
    tail = coo_array(
        (
            np.concatenate([slope, -np.ones(paths), -np.ones(paths), gain * days[day]]),
            (
                np.concatenate([np.arange(paths)] * 3 + [path]),
                np.concatenate([np.zeros(paths, int), np.ones(paths, int), 2 + np.arange(paths), 2 + paths + rows]),
            ),
        ),
        shape=(paths, number),
    )
    from scipy.sparse import vstack

    solved = linprog(
        objective,
        A_ub=vstack([above, tail]).tocsr(),
        b_ub=np.concatenate([-drawn.demand[path, day], -fixed]),
        bounds=[(0, most), (None, None), *[(0, None)] * (paths + cells)],
    )
    assert solved.status == 0, solved.message
    return float(solved.x[0]), float(solved.fun) + float(fixed.mean())


@pytest.mark.parametrize("weight", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_size_by_risk_is_that_of_the_linear_programme(weight: float, seed: int) -> None:
    given = replace(GIVEN, paths=100, horizon_days=60, seed=seed, diem_price=40.0, resale=0.6)
    drawn = scenarios.draw(history(), given)
    most = float(drawn.demand.max())
    size, value = programme(drawn, weight, risk.LEVEL, most)
    found = risk.least_risk_size(drawn.hold, most, weight)
    assert risk.mean_and_cvar(drawn.hold(found), weight) == pytest.approx(value, rel=1e-6)
    assert risk.mean_and_cvar(drawn.hold(size), weight) == pytest.approx(value, rel=1e-6)


def test_minding_the_bad_cases_more_never_holds_more() -> None:
    drawn = scenarios.draw(history(), replace(GIVEN, hazard=0.5, paths=1_000))
    most = float(drawn.demand.max())
    sizes = [risk.least_risk_size(drawn.hold, most, weight) for weight in (0.0, 0.2, 1.0, 10.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_the_dearest_outcome_on_the_boundary_counts_in_part() -> None:
    assert risk.cvar(np.arange(1.0, 11.0), 0.75) == pytest.approx((10 + 9 + 0.5 * 8) / 2.5)
    assert risk.cvar(np.array([3.0]), 0.95) == 3.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60).map(np.array), st.floats(0, 0.99))
def test_cvar_lies_between_the_mean_and_the_worst(costs: Floats, level: float) -> None:
    found = risk.cvar(costs, level)
    assert float(costs.mean()) - 1e-6 <= found <= float(costs.max()) + 1e-6
