"""Which upstream to ask next. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An upstream as the choice sees it."""

    priority: int
    weight: int
    able: bool = True
    """It may be asked now, and was not asked for this call yet."""


def choose(candidates: Sequence[Candidate], draw: float) -> int | None:
    """The index of the upstream to ask: of the lowest priority number that has an able one, by weight.

    `draw` is uniform in [0, 1). None when no candidate is able.
    """
    able = [(index, candidate) for index, candidate in enumerate(candidates) if candidate.able]
    if not able:
        return None
    first = min(candidate.priority for _, candidate in able)
    drawn = [(index, candidate.weight) for index, candidate in able if candidate.priority == first]
    left = draw * sum(weight for _, weight in drawn)
    for index, weight in drawn:
        left -= weight
        if left < 0:
            return index
    return drawn[-1][0]
