import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.money import (
    MAX_NANO,
    AmountError,
    cost_nano_up,
    diem_to_nano_down,
    format_units,
    format_usd,
    parse_units,
    parse_usd,
    quantity_down,
    usdc_to_nano,
)


@given(st.integers(0, 10**40), st.integers(0, 18))
def test_an_amount_is_written_and_read_back_exactly(amount: int, decimals: int) -> None:
    assert parse_units(format_units(amount, decimals=decimals), decimals=decimals) == amount


@pytest.mark.parametrize(
    ("text", "nano"),
    [("0", 0), ("1", 10**9), ("0.000000001", 1), (".5", 5 * 10**8), ("5.", 5 * 10**9), (" 12.50 ", 12_500_000_000)],
)
def test_usd_is_read_to_the_nano(text: str, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize("text", ["", ".", "-1", "+1", "1e3", "nan", "1,000", "1.2.3", "0x10", "١", "1 2"])
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(AmountError, match="plain decimal"):
        parse_usd(text)


def test_more_places_than_a_unit_has_are_refused_unless_they_are_zeros() -> None:
    assert parse_usd("0.0000000010") == 1
    with pytest.raises(AmountError, match="more than 9 decimal places"):
        parse_usd("0.0000000001")


def test_an_amount_above_what_a_column_holds_is_refused() -> None:
    assert parse_usd(format_usd(MAX_NANO)) == MAX_NANO
    with pytest.raises(AmountError, match="the most the ledger can hold"):
        parse_usd(format_usd(MAX_NANO + 1))
    with pytest.raises(AmountError, match="too large"):
        parse_usd("9" * 100)


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0.00"), (12_300, "0.0000123"), (10**9, "1.00"), (-1_500_000_000, "-1.50")]
)
def test_usd_is_written_with_at_least_two_places(nano: int, text: str) -> None:
    assert format_usd(nano) == text


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**12)), max_size=6))
def test_a_cost_is_rounded_up_once_by_less_than_one_nano(items: list[tuple[int, int]]) -> None:
    exact_millionths = sum(quantity * price for quantity, price in items)
    assert 0 <= cost_nano_up(items) * 1_000_000 - exact_millionths < 1_000_000


@given(st.integers(0, 10**15), st.integers(1, 10**12))
def test_what_an_amount_buys_never_costs_more_than_it(nano: int, per_million: int) -> None:
    bought = quantity_down(nano, per_million=per_million)
    assert cost_nano_up([(bought, per_million)]) <= nano < (bought + 1) * per_million / 1_000_000 + 1


def test_one_diem_is_one_usd_a_day_and_one_usdc_one_usd() -> None:
    assert diem_to_nano_down(10**18) == usdc_to_nano(10**6) == 10**9
    assert diem_to_nano_down(10**9 - 1) == 0
