"""First prices: stated ones for the demo models, and what genai-prices publishes for known model names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from freehold.money import NANO
from freehold.pricing.book import MAX_NANO_PER_MILLION
from freehold.pricing.model import (
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHED,
    CACHED_AUDIO,
    INPUT,
    INPUT_AUDIO,
    OUTPUT,
    OUTPUT_AUDIO,
    REASONING,
    Price,
    Tier,
)

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

_FIELDS = {
    INPUT: "input_mtok",
    CACHED: "cache_read_mtok",
    CACHE_WRITE: "cache_write_mtok",
    CACHE_WRITE_1H: "cache_write_1h_mtok",
    INPUT_AUDIO: "input_audio_mtok",
    CACHED_AUDIO: "cache_audio_read_mtok",
    OUTPUT: "output_mtok",
    REASONING: "output_reasoning_mtok",
    OUTPUT_AUDIO: "output_audio_mtok",
}


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

    With its tiers, as far as the model's context reaches. Where a price depends on the time of day, the dearest rates
    of the day are taken, so that no call is sold below them. Models that also cost a fee per request are left out: the
    book can't say that.
    """
    from genai_prices.data_snapshot import get_snapshot  # 4 MB of tables: read when asked, not at import

    snapshot = get_snapshot()
    when = at or datetime.now(UTC)
    for url in (model.url, None) if model.url else (None,):
        try:
            provider, info = snapshot.find_provider_model(model.upstream_id, None, None, url)
        except LookupError:
            continue
        stated = [vars(info.get_prices(moment)) for moment in _moments(info.prices, when)]
        price = _price(model, stated, f"genai-prices {provider.id}/{info.id}")
        if price is not None:
            return price
    return None


def _moments(prices: Any, when: datetime) -> list[datetime]:
    """`when`, and the times of its day at which a price that depends on the time of day begins or ends."""
    found = [when]
    for choice in prices if isinstance(prices, list) else ():
        for name in ("start_time", "end_time"):
            time = getattr(choice.constraint, name, None)
            if time is not None:
                moment = datetime.combine(when.date(), time.replace(tzinfo=time.tzinfo or UTC))
                if moment.astimezone(UTC).date() == when.date():
                    found.append(moment)
    return found


def _price(model: Offered, stated: Sequence[Mapping[str, Any]], label: str) -> Price | None:
    if any(one.get("requests_kcount") for one in stated):
        return None
    starts = {tier.start for one in stated for field in _FIELDS.values() for tier in _tiers(one.get(field))}
    above = sorted(start for start in starts if 0 < start < model.context_tokens)
    base, *rest = ({unit: nano for unit, nano in _rates(stated, step)} for step in (0, *above))
    tiers = tuple(Tier(step, rates) for step, rates in zip(above, rest, strict=True))
    usable = INPUT in base and all(
        0 <= nano <= MAX_NANO_PER_MILLION for rates in (base, *rest) for nano in rates.values()
    )
    return Price(model.id, base, label, tiers) if usable else None


def _rates(stated: Sequence[Mapping[str, Any]], above: int) -> Iterator[tuple[str, int]]:
    """Of every unit that has a rate, the dearest one of a prompt that is longer than `above` tokens."""
    for unit, field in _FIELDS.items():
        rates = [_rate(one[field], above) for one in stated if one.get(field) is not None]
        if rates:
            yield unit, nano_per_million_up(max(rates))


def _rate(stated: Any, above: int) -> Decimal:
    """genai-prices: the tier with the highest start below the prompt's length, for all of its tokens."""
    rate = Decimal(stated if isinstance(stated, Decimal) else stated.base)
    for tier in _tiers(stated):
        if tier.start <= above:
            rate = Decimal(tier.price)
    return rate


def _tiers(stated: Any) -> Sequence[Any]:
    """By rising start."""
    return (
        () if stated is None or isinstance(stated, Decimal) else sorted(stated.tiers, key=lambda tier: int(tier.start))
    )


def nano_per_million_up(usd_per_million: Decimal) -> int:
    """USD per million as nano-USD per million: exact for up to nine places, else rounded up."""
    return int((usd_per_million * NANO).to_integral_value(rounding=ROUND_CEILING))
