"""Advice from a running account: its own days of usage, and when the answer turned. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freehold.clock import Day
from freehold.planner import sizing
from freehold.planner.model import Assumptions, Choice, Provenance, SourceFile, Usage

NANO = 1_000_000_000
"""Nano-USD of a USD."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """The last day whose usage turned the answer."""

    day: Day
    """With this day's usage counted, the answer is `now`; without it, it was the other."""
    now: Choice

    @property
    def sentence(self) -> str:
        if self.now is Choice.HOLD:
            return f"The threshold was crossed on {self.day}: with that day's usage, holding DIEM pays."
        return f"The threshold was crossed on {self.day}: with that day's usage, holding DIEM no longer pays."


def usage_of_days(spent: Sequence[tuple[Day, int]], *, until: Day, calls: int = 0) -> Usage:
    """Usage from (day, nano-USD charged) in any order; days between without a row used nothing.

    The last day is the one before `until`, the day that still runs. Raises InvalidAssumption when none has ended.
    """
    ended = {day.number: nano for day, nano in spent if day < until}
    first = min(ended, default=until.number)
    demand = np.array([ended.get(number, 0) / NANO for number in range(first, until.number)], dtype=np.float64)
    found = Provenance(
        files=(SourceFile("own usage", "this server's charges", calls),),
        days=len(demand),
        days_with_data=len(ended),
        first_at_s=float(Day(first).start_s),
        last_at_s=float(until.start_s),
        notes=(f"The day that still runs, {until}, is left out.",),
    )
    return Usage(first_day=Day(first), demand=demand, provenance=found)


def crossing(usage: Usage, given: Assumptions) -> Crossing | None:
    """When the answer last turned, as the days came in; None when the first day's answer still holds."""
    over = sizing.weights(given)
    holds = [sizing.best_size(usage.demand[:days], given, over).diem > 0 for days in range(1, usage.days + 1)]
    for index in range(len(holds) - 1, 0, -1):
        if holds[index] != holds[index - 1]:
            now = Choice.HOLD if holds[index] else Choice.RENT
            return Crossing(Day(usage.first_day.number + index), now)
    return None
