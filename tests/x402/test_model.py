"""What is asked, as a pure rule."""

import pytest

from freehold.gateway.x402.model import units_up


@pytest.mark.parametrize(
    ("nano", "least", "units"),
    [(0, 0, 0), (1, 0, 1), (999, 0, 1), (1_000, 0, 1), (1_001, 0, 2), (5_000_001, 1_000, 5_001), (1, 1_000, 1_000)],
)
def test_a_price_is_rounded_up_to_a_unit_of_usdc_and_at_least_what_the_operator_says(
    nano: int, least: int, units: int
) -> None:
    assert units_up(nano, least=least) == units
