"""From usage to cost, and the worst case."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.pricing.model import UNITS, Price, cost_of_nano_up, worst_case_nano_up

RATES = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 10**15)).map(lambda rates: {"input": 7, **rates})
COUNTS = st.integers(0, 10**6)


def test_a_cost_is_summed_exactly_and_rounded_up_once() -> None:
    price = Price("m", {"input": 1, "output": 1})
    assert cost_of_nano_up(price, {"input": 1, "output": 1}) == 1
    assert cost_of_nano_up(price, {"input": 999_999, "output": 1}) == 1
    assert cost_of_nano_up(price, {"input": 1_000_000, "output": 1}) == 2
    assert cost_of_nano_up(price, {"input": 0, "output": 0}) == 0


def test_a_unit_without_a_price_costs_what_input_costs() -> None:
    price = Price("m", {"input": 3_000_000, "output": 0})
    assert cost_of_nano_up(price, {"cached_input": 2, "cache_write": 1, "output": 9}) == 9


@given(RATES, COUNTS, COUNTS, COUNTS, COUNTS)
def test_no_mix_of_input_costs_more_than_the_worst_case(
    rates: dict[str, int], plain: int, cached: int, written: int, output: int
) -> None:
    price = Price("m", rates)
    usage = {"input": plain, "cached_input": cached, "cache_write": written, "output": output}
    worst = worst_case_nano_up(price, input_tokens=plain + cached + written, output_tokens=output)
    assert cost_of_nano_up(price, usage) <= worst
