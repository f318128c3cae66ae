"""List prices as they have moved, and where they may go: paths that demand in dollars is multiplied by.

When list prices fall, the same work costs fewer dollars, and needs fewer DIEM. A model's list price stands still, then
jumps: a compound Poisson process (Merton 1976, without the diffusion) whose rate and jumps are those seen. Jumps are
drawn with replacement (Efron, "Bootstrap Methods", 1979).
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from freehold.planner.loaders.layouts import normal
from freehold.planner.loaders.problems import BadRows, UnknownListPrices
from freehold.planner.model import YEAR_DAYS, BadRow, Floats

LARGEST_JUMP = 4.0
"""A price that is seen to change by more than this factor at once was recorded wrongly before or after: cut to it."""

_COLUMNS = ("observed_date", "provider", "model", "input_usd_per_mtok", "output_usd_per_mtok")


@dataclass(frozen=True, slots=True)
class Listed:
    """A list price as seen on a day: USD per million tokens."""

    day: date
    provider: str
    model: str
    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """How list prices moved: how often a model's price changes, and by which factors."""

    models: int
    changes_a_year: float
    """Of one model."""
    factors: Floats
    """New price over old, one for each change seen."""
    first: date
    last: date

    def paths(self, days: int, paths: int, seed: int) -> Floats:
        """Factors that list prices have moved by on days 1 … `days`; a row per path."""
        rng = np.random.default_rng(seed)
        logs = np.log(self.factors) if len(self.factors) else np.zeros(1)
        jumps = rng.poisson(self.changes_a_year / YEAR_DAYS * days, paths)
        moved = np.zeros((paths, days))
        rows = np.repeat(np.arange(paths), jumps)
        np.add.at(moved, (rows, rng.integers(0, days, len(rows))), rng.choice(logs, len(rows)))
        np.cumsum(moved, axis=1, out=moved)
        result: Floats = np.exp(moved, out=moved)
        return result


def history(listed: Iterable[Listed], *, output_share: float = 0.25) -> History:
    """What the rows say of changes. A model's price is that of a million tokens, `output_share` of them output.

    Raises ValueError without rows.
    """
    series: dict[tuple[str, str], list[tuple[date, float]]] = {}
    for row in listed:
        price = (1 - output_share) * row.input_usd + output_share * row.output_usd
        if price > 0:
            series.setdefault((row.provider, row.model), []).append((row.day, price))
    if not series:
        raise ValueError("a history of list prices needs at least one price")
    first = min(day for seen in series.values() for day, _ in seen)
    last = max(day for seen in series.values() for day, _ in seen)
    factors: list[float] = []
    watched = 0
    for seen in series.values():
        seen.sort(key=lambda each: each[0])
        watched += (last - seen[0][0]).days
        factors += [new / old for (_, old), (_, new) in pairwise(seen) if new != old]
    cut = np.clip(np.array(factors), 1 / LARGEST_JUMP, LARGEST_JUMP)
    return History(len(series), len(factors) * YEAR_DAYS / max(watched, 1), cut, first, last)


def read_history(path: Path) -> list[Listed]:
    """Rows of a CSV with a date observed, provider, model, and USD per million tokens in and out; without a price, none.

    Raises UnknownListPrices and BadRows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UnknownListPrices(file=path.name, reason="it is no text in UTF-8.") from None
    found: list[Listed] = []
    bad: list[BadRow] = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = {normal(name): name for name in reader.fieldnames or ()}
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            raise UnknownListPrices(file=path.name, reason=f"it has no column {missing[0]}.")
        for row in reader:
            cells = {name: (row[names[name]] or "").strip() for name in _COLUMNS}
            try:
                found.append(_listed(cells))
            except ValueError as wrong:
                bad.append(BadRow(path.name, reader.line_num, ",".join(cells.values())[:80], str(wrong)))
    except csv.Error as wrong:
        raise UnknownListPrices(file=path.name, reason=f"it is no table ({wrong}).") from None
    if bad:
        raise BadRows(tuple(bad[:100]), len(bad))
    if not any(row.input_usd + row.output_usd > 0 for row in found):
        raise UnknownListPrices(file=path.name, reason="it has no row with a price.")
    return found


def _listed(cells: Mapping[str, str]) -> Listed:
    return Listed(
        date.fromisoformat(cells["observed_date"]),
        cells["provider"],
        cells["model"],
        _usd(cells["input_usd_per_mtok"]),
        _usd(cells["output_usd_per_mtok"]),
    )


def _usd(text: str) -> float:
    """An empty price is none, and so is one below 0, which stands for a price that varies by call. Raises ValueError."""
    value = float(text) if text else 0.0
    if not value < 1e9:
        raise ValueError(f"{text} is not a price")
    return max(0.0, value)
