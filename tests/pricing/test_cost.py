"""From usage to cost, and the worst case."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.pricing.model import (
    INPUTS,
    OUTPUTS,
    UNITS,
    Price,
    Tier,
    cost_of_nano_up,
    input_tokens,
    output_tokens,
    worst_case_nano_up,
)

RATES = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 10**15)).map(lambda rates: {"input": 7, **rates})
TIERS = st.lists(
    st.tuples(st.integers(1, 3 * 10**6), st.dictionaries(st.sampled_from(UNITS), st.integers(0, 10**15), min_size=1)),
    max_size=3,
    unique_by=lambda tier: tier[0],
).map(lambda found: tuple(Tier(above, rates) for above, rates in sorted(found, key=lambda tier: tier[0])))
PRICES = st.builds(lambda rates, tiers: Price("m", rates, "", tiers), RATES, TIERS)
COUNTS = st.integers(0, 10**6)
USAGES = st.fixed_dictionaries(
    {"input": COUNTS, "output": COUNTS}, optional={unit: COUNTS for unit in UNITS[1:] if unit != "output"}
)


def test_a_cost_is_summed_exactly_and_rounded_up_once() -> None:
    price = Price("m", {"input": 1, "output": 1})
    assert cost_of_nano_up(price, {"input": 1, "output": 1}) == 1
    assert cost_of_nano_up(price, {"input": 999_999, "output": 1}) == 1
    assert cost_of_nano_up(price, {"input": 1_000_000, "output": 1}) == 2
    assert cost_of_nano_up(price, {"input": 0, "output": 0}) == 0


@pytest.mark.parametrize(
    ("unit", "rates", "rate"),
    [
        ("cached_input", {"input": 3}, 3),
        ("cache_write", {"input": 3}, 3),
        ("cache_write_1h", {"input": 3, "cache_write": 5}, 5),
        ("input_audio", {"input": 3}, 3),
        ("cached_audio", {"input": 3, "input_audio": 7, "cached_input": 1}, 7),
        ("output", {"input": 3}, 3),
        ("reasoning", {"input": 3, "output": 9}, 9),
        ("output_audio", {"input": 3, "output": 9}, 9),
        ("reasoning", {"input": 3, "output": 9, "reasoning": 0}, 0),
    ],
)
def test_a_unit_without_a_rate_costs_what_a_nearby_one_does(unit: str, rates: dict[str, int], rate: int) -> None:
    price = Price("m", {name: nano * 1_000_000 for name, nano in rates.items()})
    assert cost_of_nano_up(price, {"input": 0, "output": 0, unit: 2}) == 2 * rate


def test_the_whole_prompt_and_the_whole_answer_are_the_sums_of_their_units() -> None:
    usage = {unit: 10**place for place, unit in enumerate(UNITS)}
    assert input_tokens(usage) == 111_111
    assert output_tokens(usage) == 111_000_000


STEPPED = Price(
    "m",
    {"input": 1_000_000, "cached_input": 500_000, "output": 2_000_000},
    "",
    (Tier(100, {"input": 3_000_000, "output": 4_000_000}), Tier(200, {"input": 5_000_000})),
)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"input": 100, "output": 10}, 100 * 1 + 10 * 2),
        ({"input": 101, "output": 10}, 101 * 3 + 10 * 4),
        ({"input": 1, "cached_input": 100, "output": 10}, 1 * 3 + 50 + 10 * 4),
        ({"input": 200, "output": 10}, 200 * 3 + 10 * 4),
        ({"input": 100, "cache_write": 101, "output": 10}, 201 * 5 + 10 * 2),
        ({"input": 0, "output": 1_000}, 2_000),
    ],
)
def test_a_tier_holds_for_the_whole_call_once_the_whole_prompt_is_above_it(usage: dict[str, int], cost: int) -> None:
    assert cost_of_nano_up(STEPPED, usage) == cost


@given(PRICES, USAGES)
def test_a_cost_is_what_exact_fractions_come_to(price: Price, usage: dict[str, int]) -> None:
    prompt = sum(tokens for unit, tokens in usage.items() if unit in INPUTS)
    rates = dict(price.nano_per_million)
    reached = [tier for tier in price.tiers if prompt > tier.above]
    if reached:
        rates.update(reached[-1].nano_per_million)
    near = {"cache_write_1h": "cache_write", "cached_audio": "input_audio", "reasoning": "output"}
    near["output_audio"] = "output"

    def rate(unit: str) -> Fraction:
        while unit not in rates:
            unit = near.get(unit, "input")
        return Fraction(rates[unit], 10**6)

    assert cost_of_nano_up(price, usage) == ceil(sum(tokens * rate(unit) for unit, tokens in usage.items()))


@given(PRICES, USAGES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_mix_of_units_and_no_tier_costs_more_than_the_worst_case(
    price: Price, usage: dict[str, int], more_input: int, more_output: int
) -> None:
    bound = sum(usage.get(unit, 0) for unit in INPUTS) + more_input
    most = sum(usage.get(unit, 0) for unit in OUTPUTS) + more_output
    assert cost_of_nano_up(price, usage) <= worst_case_nano_up(price, input_tokens=bound, output_tokens=most)


def test_the_worst_case_is_no_dearer_than_the_dearest_units_of_the_tiers_within_reach() -> None:
    assert worst_case_nano_up(STEPPED, input_tokens=100, output_tokens=10) == 100 * 1 + 10 * 2
    assert worst_case_nano_up(STEPPED, input_tokens=150, output_tokens=10) == 150 * 3 + 10 * 4
    assert worst_case_nano_up(STEPPED, input_tokens=201, output_tokens=10) == 201 * 5 + 10 * 4
