"""First prices: stated, published, or none."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot

from freehold.pricing.book import check
from freehold.pricing.model import Price, cost_of_nano_up
from freehold.pricing.problems import PriceNotSet
from freehold.pricing.seed import (
    DEMO_PRICES,
    SCRIPTED_PRICES,
    Offered,
    _price,
    first_prices,
    nano_per_million_up,
    published,
)

AT = datetime(2026, 6, 1, tzinfo=UTC)
NIGHT = datetime(2025, 6, 1, 17, tzinfo=UTC)
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def test_the_demo_models_have_the_stated_prices() -> None:
    assert first_prices([Offered("smollm2-135m", "smollm2-135m", 4_096), Offered("minilm-l6", "minilm-l6", 256)]) == [
        Price("smollm2-135m", {"input": 100_000_000, "output": 400_000_000}, "demo"),
        Price("minilm-l6", {"input": 20_000_000, "output": 0}, "demo"),
    ]


def test_every_stated_price_can_be_stored() -> None:
    for price in (*DEMO_PRICES, *SCRIPTED_PRICES):
        check(price)


def test_the_exact_scripted_model_has_free_input_so_that_a_call_costs_its_hold() -> None:
    (price,) = first_prices([Offered("scripted-exact", "scripted-exact", 1)])
    assert price.nano_per_million == {"input": 0, "output": 1_000_000_000}


def test_a_published_price_is_taken_to_the_nano_and_says_where_it_is_from() -> None:
    price = published(Offered("small", "gpt-4o-mini", 128_000, "https://api.openai.com/v1"), at=AT)
    assert price == Price(
        "small",
        {"input": 150_000_000, "cached_input": 75_000_000, "output": 600_000_000},
        "genai-prices openai/gpt-4o-mini",
    )


def test_a_model_nobody_publishes_stays_without_a_price() -> None:
    assert first_prices([Offered("mine", "my-own-finetune-v3", 8_192, "http://10.0.0.5:8000/v1")]) == []


def test_the_tiers_of_a_published_price_are_kept_as_far_as_the_context_reaches() -> None:
    short = published(Offered("s", "claude-sonnet-4-5", 200_000), at=AT)
    long = published(Offered("s", "claude-sonnet-4-5", 1_000_000), at=AT)
    assert short is not None and long is not None
    assert short.tiers == ()
    assert [tier.above for tier in long.tiers] == [200_000]
    for price, prompt in ((short, 10**6), (long, 200_000)):
        assert [price.of(unit, prompt=prompt) for unit in ("input", "output")] == [3 * 10**9, 15 * 10**9]
    assert [long.of(unit, prompt=200_001) for unit in ("input", "cached_input", "cache_write", "output")] == [
        6_000_000_000,
        600_000_000,
        7_500_000_000,
        22_500_000_000,
    ]


def test_a_price_that_depends_on_the_time_of_day_is_taken_at_its_dearest() -> None:
    cheap_at_night = published(Offered("d", "deepseek-chat", 64_000, "https://api.deepseek.com"), at=NIGHT)
    same_by_day = published(Offered("d", "deepseek-chat", 64_000, "https://api.deepseek.com"), at=NOON)
    assert cheap_at_night is not None
    assert cheap_at_night == same_by_day
    assert cheap_at_night.of("input") == 270_000_000


def test_decimals_stay_exact_and_what_is_finer_than_a_nano_is_rounded_up() -> None:
    assert nano_per_million_up(Decimal("0.07")) == 70_000_000
    assert nano_per_million_up(Decimal("0.000000001")) == 1
    assert nano_per_million_up(Decimal("0.0000000011")) == 2
    assert nano_per_million_up(Decimal(0)) == 0


def test_a_model_without_a_price_is_refused_with_the_way_to_set_one() -> None:
    problem = PriceNotSet(model="mine")
    assert problem.status == 404
    assert "PUT /v1/admin/prices/mine" in problem.message


@pytest.mark.parametrize("prompt", [1_000, 150_000, 300_000])
def test_every_published_price_costs_what_the_packages_own_calculator_says(prompt: int) -> None:
    """To the nano-USD, and what rates of more than nine places add when each is rounded up."""
    cached, written, output = prompt // 3, prompt // 5, 777
    used = Usage(input_tokens=prompt, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=output)
    compared = 0
    for provider in get_snapshot().providers:
        for info in provider.models:
            stated = info.get_prices(AT)
            price = _price(Offered(info.id, info.id, 10**9), [vars(stated)], "")
            if price is None:
                continue
            usage = {"input": prompt - cached - written, "cached_input": cached, "cache_write": written}
            usage["output"] = output if vars(stated).get("output_mtok") is not None else 0
            more = cost_of_nano_up(price, usage) - stated.calc_price(used)["total_price"] * 10**9
            assert 0 <= more < 1 + Decimal(prompt + output) / 10**6, (provider.id, info.id, more)
            compared += 1
    assert compared > 2_000
