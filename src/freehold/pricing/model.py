"""Prices as values, and the arithmetic from usage to cost. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.money import cost_nano_up

INPUT = "input"
CACHED = "cached_input"
CACHE_WRITE = "cache_write"
OUTPUT = "output"
UNITS = (INPUT, CACHED, CACHE_WRITE, OUTPUT)
"""Usage is a map unit → quantity. `input` excludes cached and cache-write tokens; `output` includes reasoning."""

Usage = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Price:
    """nano-USD per million of each unit. A unit without a price of its own costs what `input` costs."""

    model: str
    nano_per_million: Mapping[str, int]
    label: str = ""
    """Free text shown beside the price, such as `demo`."""

    def of(self, unit: str) -> int:
        return self.nano_per_million.get(unit, self.nano_per_million.get(INPUT, 0))


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One version of the book."""

    version: int
    prices: Mapping[str, Price]
    created_at_s: float = 0.0
    note: str = ""


def cost_of_nano_up(price: Price, usage: Usage) -> int:
    """What `usage` costs at `price`: exact, rounded up once to 1 nano-USD."""
    return cost_nano_up((quantity, price.of(unit)) for unit, quantity in usage.items())


def worst_case_nano_up(price: Price, *, input_tokens: int, output_tokens: int) -> int:
    """The most that a call bounded by these counts can cost, whatever mix of cached and written input it is."""
    dearest = max(price.of(INPUT), price.of(CACHED), price.of(CACHE_WRITE))
    return cost_nano_up([(input_tokens, dearest), (output_tokens, price.of(OUTPUT))])
