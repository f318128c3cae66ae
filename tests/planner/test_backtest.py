"""Series replayed under each policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.planner import online
from freehold.planner.backtest import LABELS, Backtest, Rules, Series, backtest, held_cost, replay
from freehold.planner.model import Floats, InvalidAssumption

demands = st.lists(st.floats(0, 1_000, allow_subnormal=False), min_size=1, max_size=40).map(np.array)
fees = st.floats(0.1, 60)


def one(*demand: float, **rules: float) -> Backtest:
    return backtest([Series("a", np.array(demand))], Rules(**{"carry": 0.5, **rules}))  # type: ignore[arg-type]


def test_each_policy_is_replayed_on_the_days_after_those_learnt_from() -> None:
    made = one(*[2.0] * 7, *[3.0] * 7)
    assert [each.name for each in made.policies] == list(LABELS)
    costs = made.clients[0].costs
    assert costs["rent"] == 21.0
    assert costs["clairvoyant"] == pytest.approx(3 * 3.5)
    assert costs["hold"] == pytest.approx(2 * 3.5 + 7)
    assert costs["online"] == pytest.approx(3 * (3 + 3.5))


def test_without_days_to_learn_from_policies_that_need_a_history_are_left_out() -> None:
    made = one(1.0, 2.0, learn_days=0)
    assert {each.name for each in made.policies} == {"rent", "online", "randomised", "clairvoyant"}


def test_a_client_with_too_few_days_is_left_out_by_name() -> None:
    made = backtest([Series("long", np.ones(9)), Series("short", np.ones(7))], Rules(0.5))
    assert made.left_out == ("short",)
    with pytest.raises(InvalidAssumption, match="No series has more days"):
        backtest([Series("short", np.ones(7))], Rules(0.5))


def test_the_trusting_rule_repeats_whole_weeks() -> None:
    week = [0.0, 0, 5, 5, 5, 5, 5]
    made = one(*[0.0] * 3, *week, *week, learn_days=10, trust=0.2, carry=0.4)
    right = online.trusting(np.array(week), np.array(week), 0.2, fee=0.4 * 7)
    assert made.clients[0].costs["trusting"] == pytest.approx(right.cost)
    assert made.clients[0].diem["trusting"] == 5.0


@given(demands, fees)
def test_the_clairvoyant_is_never_beaten_and_holds_the_best_size(demand: Floats, fee: float) -> None:
    best = online.clairvoyant(demand, fee=fee)
    sizes = [held_cost(float(size), demand, fee=fee) for size in (0.0, *demand)]
    assert best.cost == pytest.approx(min(sizes), abs=1e-9)
    assert best.cost == pytest.approx(held_cost(float(best.held[-1]), demand, fee=fee), abs=1e-9)


@given(demands, fees)
def test_the_deterministic_rule_never_costs_more_than_twice_the_clairvoyant(demand: Floats, fee: float) -> None:
    ruled = online.deterministic(demand, fee=fee).cost
    assert ruled <= online.deterministic_ratio() * online.clairvoyant(demand, fee=fee).cost + 1e-6


@given(demands, fees)
def test_the_randomised_rule_is_expected_to_stay_within_its_bound(demand: Floats, fee: float) -> None:
    expected = online.randomised(demand, fee=fee)
    assert expected <= online.randomised_ratio() * online.clairvoyant(demand, fee=fee).cost + 1e-6


@given(demands, fees, st.sampled_from([0.1, 0.5, 1.0]), st.data())
def test_the_trusting_rule_stays_within_both_its_bounds(
    demand: Floats, fee: float, trust: float, data: st.DataObject
) -> None:
    best = online.clairvoyant(demand, fee=fee).cost
    right = online.trusting(demand, demand, trust, fee=fee).cost
    assert right <= online.trusting_ratio_if_right(trust) * best + 1e-6
    told = np.array(data.draw(st.lists(st.floats(0, 1_000), min_size=len(demand), max_size=len(demand))))
    assert online.trusting(demand, told, trust, fee=fee).cost <= online.trusting_ratio(trust) * best + 1e-6


@given(demands, fees)
def test_the_randomised_rule_adds_up_the_same_with_a_lease_of_next_to_nothing(demand: Floats, fee: float) -> None:
    slow = online.randomised(demand, fee=fee, lease=1e-15)
    assert online.randomised(demand, fee=fee) == pytest.approx(slow, abs=1e-6)


def test_spend_outside_the_window_is_forgotten_and_what_is_bought_stays() -> None:
    demand = np.array([1.0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1])

    def limit(cut: online.Levels) -> Floats:
        return np.full(len(cut.width), 2.0)

    short, ever = (online.play(demand, limit, fee=2.0, window=window) for window in (3, None))
    assert short.held.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert ever.held.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert (short.cost, ever.cost) == (4 + 2, 2 + 2)


def test_idle_credit_is_leased() -> None:
    made = replay(Series("a", np.array([1.0, 0, 1, 0])), Rules(carry=0.5, learn_days=0, lease=0.4))
    assert made.costs["clairvoyant"] == pytest.approx(2 - 2 * 0.4)


def test_costs_are_added_up_over_clients_by_volume_and_by_client() -> None:
    series = [Series("large", np.full(14, 100.0)), *(Series(f"small {n}", np.eye(14)[13]) for n in range(3))]
    made = backtest(series, Rules(carry=0.5))
    known = made.policy("clairvoyant")
    assert made.clients[0].client == "large"
    assert known.saving == pytest.approx(350 / 703)
    assert known.saving_median == 0.0
    assert (known.holders, known.ratio, known.ratio_worst) == (1, 1.0, 1.0)


def test_several_processes_find_what_one_does() -> None:
    rng = np.random.default_rng(5)
    series = [Series(str(n), rng.gamma(1.0, 5.0, 30)) for n in range(3)]
    assert backtest(series, Rules(0.5), cores=2) == backtest(series, Rules(0.5), cores=1)


@pytest.mark.parametrize("name", ["carry", "learn_days", "overflow_price", "lease", "trust"])
def test_a_rule_that_can_not_be_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidAssumption, match=name):
        Rules(**{"carry": 0.5, name: -1})  # type: ignore[arg-type]
