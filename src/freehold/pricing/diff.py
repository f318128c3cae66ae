"""How two books differ, rate by rate. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.pricing.model import UNITS, Price


@dataclass(frozen=True, slots=True)
class RateDifference:
    """One rate of one model, nano-USD per million; None on the side that has no price for the model at all."""

    model: str
    above: int
    """Tokens of the prompt above which it is so; 0: from the first on."""
    unit: str
    before_nano: int | None
    after_nano: int | None


def differences(before: Mapping[str, Price], after: Mapping[str, Price]) -> list[RateDifference]:
    """Every rate that a call would feel, by model, tier and unit. Rates that neither side names are left out."""
    found: list[RateDifference] = []
    for model in sorted(before.keys() | after.keys()):
        sides = (before.get(model), after.get(model))
        named = {unit for price in sides if price is not None for unit in _named(price)}
        above = {0} | {tier.above for price in sides if price is not None for tier in price.tiers}
        last: dict[str, tuple[int | None, int | None]] = {}
        for step in sorted(above):
            for unit in UNITS:
                if unit not in named:
                    continue
                old, new = (None if price is None else price.of(unit, prompt=step + 1) for price in sides)
                if old != new and last.get(unit) != (old, new):
                    found.append(RateDifference(model, step, unit, old, new))
                last[unit] = (old, new)
    return found


def _named(price: Price) -> set[str]:
    return {*price.nano_per_million, *(unit for tier in price.tiers for unit in tier.nano_per_million)}
