"""The price book as rows to show."""

from collections.abc import Iterable
from dataclasses import dataclass

from freehold.money import format_usd
from freehold.pricing.model import CACHE_WRITE, CACHED, INPUT, OUTPUT, Price, PriceBook


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A model's price as decimal USD per million tokens; every amount is filled, also those that follow input's."""

    model: str
    label: str
    input_usd_per_million: str
    cached_input_usd_per_million: str
    cache_write_usd_per_million: str
    output_usd_per_million: str


def row(price: Price) -> PriceRow:
    return PriceRow(price.model, price.label, *(format_usd(price.of(u)) for u in (INPUT, CACHED, CACHE_WRITE, OUTPUT)))


def rows(book: PriceBook, models: Iterable[str] | None = None) -> list[PriceRow]:
    """One row per priced model, by name; with `models`, only of those."""
    wanted = book.prices.keys() if models is None else book.prices.keys() & set(models)
    return [row(book.prices[model]) for model in sorted(wanted)]
