"""Results that are known beforehand, out of the functions that planning uses."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from freehold.clock import Day
from freehold.planner import online, risk, sizing
from freehold.planner.backtest import Rules, Series, backtest
from freehold.planner.loaders.load import load
from freehold.planner.model import Assumptions, Choice, Usage
from freehold.planner.planner import implied_hazard, plan

# 1. Ski rental


@pytest.mark.parametrize(("buy", "ratio"), [(2, 1.5), (10, 1.9), (100, 1.99)])
def test_buying_on_day_b_costs_at_most_two_less_one_in_b(buy: int, ratio: float) -> None:
    assert online.ski_rental_ratio(buy) == pytest.approx(ratio, abs=1e-12)
    assert ratio == pytest.approx(2 - 1 / buy)


def test_drawing_the_day_costs_at_most_what_the_formula_says() -> None:
    assert round(online.randomised_ski_rental_ratio(100), 5) == 1.57737
    for buy in (2, 5, 33):
        assert online.randomised_ski_rental_ratio(buy) == pytest.approx(1 / (1 - (1 - 1 / buy) ** buy), rel=1e-12)


def test_no_other_single_day_does_better_than_day_b() -> None:
    def worst(day: int) -> float:
        return max(online.ski_rental_cost(days, day, 10) / min(days, 10) for days in range(1, 40))

    assert min(map(worst, range(1, 40))) == pytest.approx(online.ski_rental_ratio(10))


# 2. Wang, Liang and Li


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.49, 0.9])
def test_the_deterministic_rule_costs_at_most_two_less_alpha(alpha: float) -> None:
    assert online.deterministic_ratio(alpha) == pytest.approx(2 - alpha)
    at = online.break_even_spend(alpha)
    spends = np.linspace(1e-3, 5 * at, 4_001)
    ratios = [online.level_cost(x, at, alpha) / online.clairvoyant_cost(x, alpha) for x in (*spends, at)]
    assert max(ratios) == pytest.approx(2 - alpha)


def test_the_randomised_rule_costs_at_most_e_over_e_less_one_plus_alpha() -> None:
    assert round(online.randomised_ratio(0.49), 4) == 1.2309


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.49, 0.9])
def test_thresholds_have_the_stated_density_and_the_rest_never_buys(alpha: float) -> None:
    end = online.break_even_spend(alpha)
    mass, _ = integrate.quad(online.threshold_density, 0, end, args=(alpha,))
    assert mass + online.never_buy_mass(alpha) == pytest.approx(1)
    assert online.never_buy_mass(alpha) == pytest.approx(alpha / (math.e - 1 + alpha))
    assert online.threshold_density(end, alpha) == online.threshold_density(-0.1, alpha) == 0
    for chance in (0.1, 0.5):
        reached, _ = integrate.quad(online.threshold_density, 0, online.random_threshold(chance, alpha), args=(alpha,))
        assert reached == pytest.approx(chance)


@pytest.mark.parametrize("alpha", [0.0, 0.49])
@pytest.mark.parametrize("spend", [0.05, 0.7, 1.0, 1.5, 4.0])
def test_the_expected_cost_is_the_same_multiple_of_the_clairvoyants_whatever_the_spend(
    alpha: float, spend: float
) -> None:
    chances = (np.arange(200_000) + 0.5) / 200_000
    costs = [online.level_cost(spend, online.random_threshold(float(c), alpha), alpha) for c in chances[::10]]
    expected = np.mean(costs) / online.clairvoyant_cost(spend, alpha)
    assert expected == pytest.approx(online.randomised_ratio(alpha), rel=2e-3)


# 3. Trusting a forecast


@pytest.mark.parametrize("trust", [0.1, 0.5, 1.0])
def test_trusting_costs_at_most_one_plus_lambda_when_right_and_one_plus_its_inverse_when_wrong(trust: float) -> None:
    spends = np.linspace(1e-3, 30, 6_001)
    right = max(
        online.level_cost(x, online.trusting_threshold(x, trust), 0) / online.clairvoyant_cost(x, 0) for x in spends
    )
    wrong = max(
        online.level_cost(x, online.trusting_threshold(told, trust), 0) / online.clairvoyant_cost(x, 0)
        for told in (0.5, 2.0)
        for x in (*spends, trust, 1 / trust)
    )
    assert right <= online.trusting_ratio_if_right(trust) + 1e-12 == pytest.approx(1 + trust)
    assert wrong == pytest.approx(online.trusting_ratio(trust)) == pytest.approx(1 + 1 / trust)


# 4. Exponential demand


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_exponential_demand_is_held_to_minus_the_logarithm_of_the_ratio(ratio: float) -> None:
    demand = stats.expon()
    size = sizing.fractile(demand, sizing.critical_ratio(ratio, 0.0, 1.0))
    assert size == pytest.approx(-math.log(ratio))
    assert sizing.daily_cost(size, demand, kappa=ratio) == pytest.approx(ratio * (1 - math.log(ratio)))


def test_days_drawn_from_a_distribution_are_held_to_its_fractile() -> None:
    days = stats.expon().ppf((np.arange(20_000) + 0.5) / 20_000)
    given = Assumptions(diem_price=100.0, resale=0.0, fee=0.0, hazard=0.0, discount_rate=0.0, horizon_days=200)
    assert sizing.carry(given) == pytest.approx(0.5)
    size = sizing.best_size(days, given).diem
    assert size == pytest.approx(math.log(2), abs=1e-3)
    assert sizing.hold(size, days, given) / 200 == pytest.approx(0.5 * (1 + math.log(2)), abs=1e-3)


# 5. CVaR


def test_the_cvar_of_a_normal_cost_is_its_closed_form() -> None:
    for mean, deviation, level in ((0.0, 1.0, 0.95), (10.0, 3.0, 0.9)):
        formula = mean + deviation * stats.norm.pdf(stats.norm.ppf(level)) / (1 - level)
        costs = stats.norm(mean, deviation)
        assert risk.gaussian_cvar(mean, deviation, level) == pytest.approx(formula)
        assert risk.cvar_of(costs, level) == pytest.approx(formula)
        assert risk.cvar(costs.ppf((np.arange(100_000) + 0.5) / 100_000), level) == pytest.approx(formula, rel=1e-3)


# 6. Azure 2023


@pytest.mark.parametrize(
    ("name", "requests", "input_tokens", "output_tokens"), [("code", 8_819, 1_469, 13), ("conv", 19_366, 1_020, 129)]
)
def test_the_azure_traces_have_their_published_medians(
    azure: Path, name: str, requests: int, input_tokens: int, output_tokens: int
) -> None:
    made = load([azure / f"AzureLLMInferenceTrace_{name}.csv"]).provenance
    assert made.rows == requests
    assert (made.median_input_tokens, made.median_output_tokens) == (input_tokens, output_tokens)


def test_the_azure_conversation_hour_is_planned(azure: Path) -> None:
    made = plan(load([azure / "AzureLLMInferenceTrace_conv.csv"]).usage(), Assumptions(diem_price=183.0, paths=200))
    assert made.decision is Choice.HOLD
    assert any("1.0 hours of a day" in warning for warning in made.provenance.warnings)
    assert any("Only 1 day" in warning for warning in made.provenance.warnings)


# 7. What a price implies


def test_a_price_of_183_means_183_days_of_full_use_and_a_rate_of_199_percent() -> None:
    given = Assumptions(diem_price=183.0, lease=1.0, discount_rate=0.05)
    assert sizing.payback_days(183.0, sizing.value_per_day(1.0, given)) == pytest.approx(183)
    implied = implied_hazard(given)
    assert f"{implied.total_rate:.0%}" == "199%"
    assert implied.hazard == pytest.approx(implied.total_rate - 0.05)
    steady = Usage(Day(20_000), np.full(28, 5.0))
    assert plan(steady, Assumptions(diem_price=183.0, paths=200)).payback.days_without_resale == pytest.approx(183)


def test_the_implied_hazard_gives_the_price_back() -> None:
    implied = implied_hazard(Assumptions(diem_price=183.0, discount_rate=0.07))
    worth, _ = integrate.quad(lambda t: 365 * math.exp(-(0.07 + implied.hazard) * t), 0, np.inf)
    assert worth == pytest.approx(183)


# 8. Rent doesn't die with a platform


@pytest.mark.parametrize("hazard", [0.0, 0.5, 50.0])
def test_a_dollar_a_day_rents_for_365_dollars_a_year_whatever_the_hazard(hazard: float) -> None:
    steady = Usage(Day(20_000), np.ones(28))
    given = Assumptions(diem_price=100.0, hazard=hazard, discount_rate=0.0, horizon_days=365, paths=200)
    assert sizing.rent(steady.demand, given) == pytest.approx(365)
    line = plan(steady, given).cost("rent")
    assert line.expected == pytest.approx(365)
    assert (line.spread.p10, line.spread.p90, line.spread.cvar95) == pytest.approx((365, 365, 365))


# 9. ServeGen


def test_knowing_the_size_saves_forty_percent_of_servegens_volume_and_twelve_of_its_median_client(
    servegen: Path,
) -> None:
    trace = load([servegen])
    assert len(trace.clients) == 43
    series = [Series(client, trace.usage(client=client).demand) for client in trace.clients]
    assert {len(each.demand) for each in series} == {14}
    made = backtest(series, Rules(carry=0.5, learn_days=0))
    known = made.policy("clairvoyant")
    assert f"{known.saving:.0%}" == "40%"
    assert f"{known.saving_median:.0%}" == "12%"
    assert 43 - known.holders >= 15


def test_a_made_up_set_of_clients_is_read_replayed_and_planned_in_the_same_way(tmp_path: Path) -> None:
    """What the traces show, where they aren't: one client is steady, one calls on a single day."""
    rates = {"steady": [2.0] * 14, "once": [0.0] * 13 + [5.0]}
    for name, days in rates.items():
        rows = [f"{86_400 * day + 600 * at},{days[day]},1,Gamma,1,1" for day in range(14) for at in range(144)]
        (tmp_path / f"{name}-trace.csv").write_text("\n".join(rows), "utf-8")
    trace = load([tmp_path])
    assert trace.clients == ("once", "steady")
    made = backtest([Series(each, trace.usage(client=each).demand) for each in trace.clients], Rules(0.5, 0))
    known = made.policy("clairvoyant")
    assert known.holders == 1
    assert known.saving == pytest.approx(14 / (28 + 5))
    assert known.saving_median == pytest.approx(0.25)
    given = Assumptions(diem_price=183.0, horizon_days=90, resale=0.0, paths=100)
    decided = {each: plan(trace.usage(client=each), given).decision for each in trace.clients}
    assert decided == {"once": Choice.RENT, "steady": Choice.RENT}
    year = Assumptions(diem_price=183.0, resale=0.0, hazard=0.1, paths=100)
    decided = {each: plan(trace.usage(client=each), year).decision for each in trace.clients}
    assert decided == {"once": Choice.RENT, "steady": Choice.HOLD}


def test_every_servegen_client_is_planned(servegen: Path) -> None:
    trace = load([servegen])
    given = Assumptions(diem_price=183.0, horizon_days=90, resale=0.8, paths=100)
    made = {client: plan(trace.usage(client=client), given) for client in trace.clients}
    assert {each.decision for each in made.values()} == {Choice.RENT, Choice.HOLD}
    assert all(each.size >= 0 and math.isfinite(each.saving) for each in made.values())
