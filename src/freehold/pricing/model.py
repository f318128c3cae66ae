"""Prices as values, and the arithmetic from usage to cost. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

INPUT = "input"
CACHED = "cached_input"
CACHE_WRITE = "cache_write"
CACHE_WRITE_1H = "cache_write_1h"
INPUT_AUDIO = "input_audio"
CACHED_AUDIO = "cached_audio"
OUTPUT = "output"
REASONING = "reasoning"
OUTPUT_AUDIO = "output_audio"

INPUTS = (INPUT, CACHED, CACHE_WRITE, CACHE_WRITE_1H, INPUT_AUDIO, CACHED_AUDIO)
OUTPUTS = (OUTPUT, REASONING, OUTPUT_AUDIO)
UNITS = INPUTS + OUTPUTS
"""Usage is a map unit → tokens. The units are disjoint: each token is counted in exactly one, and the sum of INPUTS is
the whole prompt, the sum of OUTPUTS the whole answer. What each means stands in README.md."""

_ELSE: Mapping[str, str] = {
    CACHED: INPUT,
    CACHE_WRITE: INPUT,
    CACHE_WRITE_1H: CACHE_WRITE,
    INPUT_AUDIO: INPUT,
    CACHED_AUDIO: INPUT_AUDIO,
    OUTPUT: INPUT,
    REASONING: OUTPUT,
    OUTPUT_AUDIO: OUTPUT,
}
"""What a unit costs that has no rate of its own."""

Usage = Mapping[str, int]


def input_tokens(usage: Usage) -> int:
    """The whole prompt."""
    return sum([tokens for unit, tokens in usage.items() if unit not in OUTPUTS])


def output_tokens(usage: Usage) -> int:
    """The whole answer, with what was thought on the way."""
    return sum([usage.get(unit, 0) for unit in OUTPUTS])


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates of a call whose prompt is longer than `above` tokens. They hold for the whole call, not for the rest of it.

    A unit without a rate here keeps the price's own.
    """

    above: int
    nano_per_million: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Price:
    """nano-USD per million of each unit. A unit without a rate of its own costs what a nearby one does (README.md)."""

    model: str
    nano_per_million: Mapping[str, int]
    label: str = ""
    """Free text shown beside the price, such as `demo`."""
    tiers: tuple[Tier, ...] = ()
    """By rising `above`."""
    _steps: tuple[tuple[int, Mapping[str, int], int, int], ...] = field(init=False, repr=False, compare=False)
    """Of the base and each tier: above, the rate of every unit, and the dearest rates of input and of output so far."""

    def __post_init__(self) -> None:
        steps: list[tuple[int, Mapping[str, int], int, int]] = []
        dearest = (0, 0)
        for above, own in ((0, {}), *((tier.above, tier.nano_per_million) for tier in self.tiers)):
            rates = _whole({**self.nano_per_million, **own})
            dearest = (
                max(dearest[0], *map(rates.__getitem__, INPUTS)),
                max(dearest[1], *map(rates.__getitem__, OUTPUTS)),
            )
            steps.append((above, rates, *dearest))
        object.__setattr__(self, "_steps", tuple(steps))

    def of(self, unit: str, *, prompt: int = 0) -> int:
        """The rate of a unit in a call whose whole prompt has so many tokens."""
        return self.rates(prompt)[unit]

    def rates(self, prompt: int) -> Mapping[str, int]:
        """The rate of every unit in a call whose whole prompt has so many tokens."""
        return self._step(prompt)[1]

    def dearest(self, prompt: int) -> tuple[int, int]:
        """The dearest rates of input and of output that a call can come to whose prompt has at most so many tokens."""
        step = self._step(prompt)
        return step[2], step[3]

    def _step(self, prompt: int) -> tuple[int, Mapping[str, int], int, int]:
        steps = self._steps
        found = steps[0]
        if self.tiers:
            for step in steps[1:]:
                if prompt <= step[0]:
                    break
                found = step
        return found


def _whole(own: Mapping[str, int]) -> Mapping[str, int]:
    """The rate of every unit."""
    rates = {INPUT: own.get(INPUT, 0)}
    for unit in UNITS:
        if unit != INPUT:
            rates[unit] = own[unit] if unit in own else rates[_ELSE[unit]]
    return rates


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One version of the book."""

    version: int
    prices: Mapping[str, Price]
    created_at_s: float = 0.0
    note: str = ""
    effective_at_s: int = 0
    """Ledger time from which it holds."""


def cost_of_nano_up(price: Price, usage: Usage) -> int:
    """What `usage` costs at `price`: exact, rounded up once to 1 nano-USD, in favour of the ledger."""
    rates = price.rates(input_tokens(usage) if price.tiers else 0)
    total = 0
    for unit, tokens in usage.items():
        total += tokens * rates[unit]
    return -(-total // 1_000_000)


def worst_case_nano_up(price: Price, *, input_tokens: int, output_tokens: int) -> int:
    """The most that a call bounded by these counts can cost, whatever mix of units and whichever tier it comes to."""
    input_rate, output_rate = price.dearest(input_tokens)
    return -(-(input_tokens * input_rate + output_tokens * output_rate) // 1_000_000)
