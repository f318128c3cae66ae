"""Streams at published prices cost to the nano-USD what a hand calculation says, and their bill is the sum of it."""

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from tests.gateway.house import House, worker
from tests.gateway.raw import CHAT, ask

from freehold.clock import Day, Month
from freehold.db import Database
from freehold.pricing.seed import Offered, published
from freehold.upstream.model import Kind, Model
from freehold.upstream.scripted import Script, Scripted

AT = datetime(2026, 6, 1, tzinfo=UTC)
URLS = {
    "anthropic": "https://api.anthropic.com/v1",
    "openai": "https://api.openai.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "openrouter": "https://openrouter.ai/api/v1",
    "perplexity": "https://api.perplexity.ai",
    "x-ai": "https://api.x.ai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
}
ENTRIES = [
    ("anthropic", "claude-3-haiku"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-opus-4-1"),
    ("anthropic", "claude-opus-5-5"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-sonnet-5-5"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-pro"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4.1"),
    ("openai", "gpt-5"),
    ("openai", "gpt-5-nano"),
    ("openai", "gpt-5.4"),
    ("openai", "o3"),
    ("openrouter", "qwen/qwen3.7-flash"),
    ("perplexity", "sonar-deep-research"),
    ("x-ai", "grok-4-0709"),
    ("mistral", "mistral-large-latest"),
    ("groq", "openai/gpt-oss-120b"),
]
CONTEXT = 2_000_000
MODELS = [Model(f"{provider}/{name}", Kind.CHAT, CONTEXT, 50_000, name) for provider, name in ENTRIES]
OUTPUT = {"completion_tokens": 4_321, "reasoning_tokens": 3_217}


@pytest.fixture(scope="module")
async def selling(migrated_template: str, postgres_url: str) -> AsyncIterator[House]:
    """A worker whose upstream offers the models above."""
    from urllib.parse import urlsplit, urlunsplit

    import asyncpg
    from tests.gateway.house import prepare

    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database published_prices template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/published_prices")))
    try:
        await prepare(database)
        async with worker(database, scripted=Scripted(models=MODELS)) as house:
            yield house
    finally:
        await database.close()
        await server.execute("drop database published_prices with (force)")
        await server.close()


def stated(provider: str, name: str) -> dict[str, Any]:
    """What the package says, as it says it."""
    _, info = get_snapshot().find_provider_model(name, None, None, URLS[provider])
    return {field: value for field, value in vars(info.get_prices(AT)).items() if value is not None}


def starts(prices: dict[str, Any]) -> list[int]:
    return sorted({tier.start for value in prices.values() for tier in getattr(value, "tiers", ())})


def by_hand(prices: dict[str, Any], prompt: int, classes: dict[str, int]) -> int:
    """nano-USD, rounded up once. `classes`: field of genai-prices → tokens; a class without a price is its parent's."""
    parents = {
        "cache_read_mtok": "input_mtok",
        "cache_write_mtok": "input_mtok",
        "output_reasoning_mtok": "output_mtok",
    }
    usd = Fraction(0)
    for field, tokens in classes.items():
        price = prices[field if field in prices else parents[field]]
        rate: Decimal = price if isinstance(price, Decimal) else price.base
        for tier in getattr(price, "tiers", ()):
            if prompt > tier.start:
                rate = tier.price
        usd += Fraction(tokens) * Fraction(rate) / 1_000_000
    return math.ceil(usd * 10**9)


def test_the_twenty_entries_have_tiers_caches_and_reasoning_among_them() -> None:
    found = [stated(*entry) for entry in ENTRIES]
    assert len(found) == 20
    assert sum(bool(starts(prices)) for prices in found) >= 5
    assert sum(len(starts(prices)) > 1 for prices in found) >= 1
    assert sum("cache_write_mtok" in prices for prices in found) >= 7
    assert sum("output_reasoning_mtok" in prices for prices in found) >= 1


@pytest.mark.parametrize(("provider", "name"), ENTRIES)
async def test_a_stream_costs_what_the_hand_calculation_says(selling: House, provider: str, name: str) -> None:
    model, prices = f"{provider}/{name}", stated(provider, name)
    price = published(Offered(model, name, CONTEXT, URLS[provider]), at=AT)
    assert price is not None
    await selling.set_price(model, price.nano_per_million, tiers=price.tiers)
    customer = await selling.customer(prepaid="1000")
    expected = []
    for prompt in (1_003, *(step for start in starts(prices) for step in (start, start + 1))):
        cached, written = prompt * 2 // 3, prompt // 7
        usage = {
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens": OUTPUT["completion_tokens"],
            "completion_tokens_details": {"reasoning_tokens": OUTPUT["reasoning_tokens"]},
            "total_tokens": prompt + OUTPUT["completion_tokens"],
        }
        selling.scripted.script = Script(chunks=("so ", "it ", "is"), usage=usage)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "x" * prompt}],
            "stream": True,
            "max_completion_tokens": 10_000,
        }
        answer = await ask(selling.port, CHAT, body, customer.token)
        assert answer.status == 200
        classes = {
            "input_mtok": prompt - cached - written,
            "cache_read_mtok": cached,
            "cache_write_mtok": written,
            "output_mtok": OUTPUT["completion_tokens"] - OUTPUT["reasoning_tokens"],
            "output_reasoning_mtok": OUTPUT["reasoning_tokens"],
        }
        expected.append(by_hand(prices, prompt, classes))
    charges = await selling.charges(customer)
    assert sorted(charge.cost_nano for charge in charges) == sorted(expected)
    assert all(charge.absorbed_nano == 0 and not charge.estimated for charge in charges)
    bill = await selling.ledger.bill(customer.account_id, Month.of(Day(charges[0].day).start_s))
    assert (bill.used_nano, bill.calls) == (sum(expected), len(expected))
