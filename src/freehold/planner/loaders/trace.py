"""What was read, added up by client, day and model; and one client's, or everybody's, demand at prices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from freehold.clock import Day
from freehold.planner.loaders.problems import NoUsage, UnpricedUsage
from freehold.planner.model import Floats, Gap, ModelUse, Provenance, Unit, Usage
from freehold.pricing.model import CACHED, INPUT, OUTPUT, Price

PriceOf = Callable[[str], Price | None]
"""A model's price, or None; the empty name is a trace's that names no model."""

SUMS = ("requests", "input", "cached", "output", "cost", "free_requests", "free_input", "free_cached", "free_output")
"""`free_…`: of rows that state no cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Usage as read: `daily` has a row for each client, day and model, with `SUMS`."""

    daily: pl.DataFrame
    provenance: Provenance

    @property
    def clients(self) -> tuple[str, ...]:
        """Whose series these are, by name; one empty name when nobody was told apart."""
        return tuple(sorted(self.daily["client"].unique().to_list(), key=_natural))

    def usage(
        self,
        prices: PriceOf | None = None,
        *,
        usd_per_request: float | None = None,
        model: str = "",
        client: str | None = None,
    ) -> Usage:
        """Demand a day, of `client` or of all together.

        A cost that the rows state is taken as it is. Rows without one are priced by their model (`model` where they
        name none), else at `usd_per_request`. Where nothing has a cost or a price, the demand is relative: counted in
        tokens, or in requests where there are no tokens. Raises UnpricedUsage when only some rows have a price, and
        NoUsage.
        """
        rows = self.daily if client is None else self.daily.filter(pl.col("client") == client)
        if rows.height == 0:
            raise NoUsage(files=client or "the files")
        grouped = rows.group_by("day", "model").agg(pl.col(name).sum() for name in SUMS).sort("day", "model")
        costs, unpriced, notes = _costs(grouped, prices, usd_per_request, model)
        stated = bool((grouped["cost"] > 0).any())
        priced = ~unpriced & (grouped["free_requests"] + _tokens(grouped) > 0).to_numpy()
        unit = Unit.USD
        if unpriced.any():
            if stated or priced.any():
                names = sorted(set(grouped.filter(pl.Series(unpriced))["model"].to_list()))
                count = float(grouped.filter(pl.Series(unpriced))["free_requests"].sum())
                raise UnpricedUsage(
                    requests=f"{count:,.0f}", models=", ".join(name or "no named model" for name in names)
                )
            unit = Unit.RELATIVE
            costs, told = _relative(grouped)
            notes.append(told)
        return self._built(grouped, costs, unit, notes, client)

    def _built(
        self, grouped: pl.DataFrame, costs: Floats, unit: Unit, notes: Sequence[str], client: str | None
    ) -> Usage:
        number = grouped["day"].to_numpy()
        first, last = int(number.min()), int(number.max())
        places, days = number - first, last - first + 1
        demand: Floats = np.bincount(places, costs, days).astype(np.float64)
        seen = np.bincount(places, minlength=days) > 0
        requests: Floats = np.bincount(places, grouped["requests"].to_numpy(), days).astype(np.float64)
        provenance = replace(
            self.provenance,
            files=tuple(file for file in self.provenance.files if client is None or file.client == client),
            days=days,
            days_with_data=int(seen.sum()),
            gaps=_gaps(seen, first),
            notes=(*self.provenance.notes, *notes),
            warnings=(*self.provenance.warnings, *_short(self.provenance, days)),
        )
        return Usage(Day(first), demand, unit, requests, _models(grouped, costs), provenance)


def _natural(name: str) -> list[tuple[int, str]]:
    """chunk-2 before chunk-10."""
    import re

    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _tokens(grouped: pl.DataFrame) -> pl.Series:
    return grouped["free_input"] + grouped["free_cached"] + grouped["free_output"]


def _costs(
    grouped: pl.DataFrame, prices: PriceOf | None, usd_per_request: float | None, model: str
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]], list[str]]:
    """USD of each row; which rows have usage that nothing prices; what to say of it."""
    costs = grouped["cost"].to_numpy().copy()
    unpriced = np.zeros(len(costs), dtype=bool)
    notes: list[str] = []
    names = grouped["model"].to_list()
    found = {name: prices(name or model) if prices is not None else None for name in set(names)}
    free = grouped.select("free_requests", "free_input", "free_cached", "free_output").to_numpy()
    by_request = 0.0
    for place, name in enumerate(names):
        requests, fresh, cached, output = free[place].tolist()
        price = found[name]
        if requests + fresh + cached + output <= 0:
            continue
        if price is not None and fresh + cached + output > 0:
            prompt = int((fresh + cached) / requests) if requests > 0 else 0
            rates = price.rates(prompt)
            costs[place] += (fresh * rates[INPUT] + cached * rates[CACHED] + output * rates[OUTPUT]) * 1e-15
        elif usd_per_request is not None and requests > 0:
            costs[place] += requests * usd_per_request
            by_request += requests
        else:
            unpriced[place] = True
    labels = sorted({price.label or "the price book" for name, price in found.items() if price is not None})
    if labels and _tokens(grouped).sum() > 0:
        notes.append(f"Tokens are priced by {', '.join(labels)}.")
    if by_request:
        notes.append(f"{by_request:,.0f} requests are counted at {usd_per_request:g} USD each.")
    return costs, unpriced, notes


def _relative(grouped: pl.DataFrame) -> tuple[Floats, str]:
    tokens = _tokens(grouped).to_numpy()
    if (tokens > 0).any():
        return tokens, "Demand is counted in tokens, input and output alike, since nothing says what they cost."
    return grouped["free_requests"].to_numpy(), "Demand is counted in requests, since nothing says what they cost."


def _gaps(seen: np.ndarray[tuple[int], np.dtype[np.bool_]], first: int) -> tuple[Gap, ...]:
    edges = np.diff(np.concatenate([[False], ~seen, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple(
        Gap(Day(first + start), Day(first + end - 1)) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    )


def _short(provenance: Provenance, days: int) -> tuple[str, ...]:
    if days > 1 or provenance.first_at_s is None or provenance.last_at_s is None:
        return ()
    hours = (provenance.last_at_s - provenance.first_at_s) / 3_600
    return (f"The rows cover {hours:.1f} hours of a day, which are taken for the whole day.",) if hours < 20 else ()


def _models(grouped: pl.DataFrame, costs: Floats) -> tuple[ModelUse, ...]:
    if grouped["model"].unique().to_list() == [""]:
        return ()
    added = (
        grouped.with_columns(pl.Series("demand", costs))
        .group_by("model")
        .agg(pl.col("requests", "input", "cached", "output", "demand").sum())
        .sort("demand", "model", descending=[True, False])
    )
    return tuple(
        ModelUse(
            row["model"], row["requests"], row["input"] + row["cached"], row["cached"], row["output"], row["demand"]
        )
        for row in added.iter_rows(named=True)
    )
