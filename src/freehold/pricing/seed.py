"""First prices: stated ones for the demo models, and what genai-prices publishes for known model names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from freehold.money import NANO
from freehold.pricing.book import MAX_NANO_PER_MILLION
from freehold.pricing.model import CACHE_WRITE, CACHED, INPUT, OUTPUT, Price

DEMO_PRICES = (
    Price("smollm2-135m", {INPUT: NANO // 10, OUTPUT: NANO * 4 // 10}, "demo"),
    Price("minilm-l6", {INPUT: NANO // 50, OUTPUT: 0}, "demo"),
)
"""0.10 in and 0.40 out, and 0.02, USD per million tokens."""

SCRIPTED_PRICES = (
    Price("scripted-echo", {INPUT: NANO, OUTPUT: NANO * 2}, "demo"),
    Price("scripted-exact", {INPUT: 0, OUTPUT: NANO}, "demo"),
    Price("scripted-embedding", {INPUT: NANO, OUTPUT: 0}, "demo"),
)
"""Round numbers for the scripted models: 1,000 nano-USD a token, and twice that for the echo's output."""

_FIELDS = {INPUT: "input_mtok", CACHED: "cache_read_mtok", CACHE_WRITE: "cache_write_mtok", OUTPUT: "output_mtok"}


@dataclass(frozen=True, slots=True)
class Offered:
    """A model that some upstream offers, as far as a price needs it."""

    id: str
    upstream_id: str
    context_tokens: int
    url: str | None = None
    """The upstream's address, by which genai-prices knows the provider."""


def first_prices(offered: Iterable[Offered], *, at: datetime | None = None) -> list[Price]:
    """A first price for each model that has a stated or a published one; the others stay without.

    Given to `Prices.seed`, which never touches a model that has a price.
    """
    stated = {price.model: price for price in (*DEMO_PRICES, *SCRIPTED_PRICES)}
    found = (stated.get(model.id) or published(model, at=at) for model in offered)
    return [price for price in found if price is not None]


def published(model: Offered, *, at: datetime | None = None) -> Price | None:
    """The price that the genai-prices data package states for this model at time `at` (default now), or None.

    Where a price rises with the prompt's length, the dearest step within the model's context is taken, so that no
    call is sold below it. Models that also cost a fee per request are left out: the book can't say that.
    """
    from genai_prices.data_snapshot import get_snapshot  # 4 MB of tables: read when asked, not at import

    snapshot = get_snapshot()
    for url in (model.url, None) if model.url else (None,):
        try:
            provider, info = snapshot.find_provider_model(model.upstream_id, None, None, url)
        except LookupError:
            continue
        rates = _rates(vars(info.get_prices(at or datetime.now(UTC))), model.context_tokens)
        if rates is not None:
            return Price(model.id, rates, f"genai-prices {provider.id}/{info.id}")
    return None


def _rates(published: Mapping[str, Any], context_tokens: int) -> dict[str, int] | None:
    if published.get("requests_kcount"):
        return None
    rates: dict[str, int] = {}
    for unit, field in _FIELDS.items():
        stated = published.get(field)
        if stated is not None:
            rates[unit] = nano_per_million_up(_dearest(stated, context_tokens))
    usable = INPUT in rates and all(0 <= nano <= MAX_NANO_PER_MILLION for nano in rates.values())
    return rates if usable else None


def nano_per_million_up(usd_per_million: Decimal) -> int:
    """USD per million as nano-USD per million: exact for up to nine places, else rounded up."""
    return int((usd_per_million * NANO).to_integral_value(rounding=ROUND_CEILING))


def _dearest(stated: Any, context_tokens: int) -> Decimal:
    if isinstance(stated, Decimal):
        return stated
    reached = (Decimal(tier.price) for tier in stated.tiers if tier.start < context_tokens)
    return max((Decimal(stated.base), *reached))
