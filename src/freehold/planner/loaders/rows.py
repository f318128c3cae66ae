"""Rows of texts → rows of numbers: each field is read whole or named as bad. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from freehold.planner.loaders.layouts import Layout

Column = NDArray[Any]

RAW_LINE = "\x00line"
"""The column of line numbers; no file has a column of that name, since names are made lower case and visible."""

EPOCH_AT_LEAST_S = 3e8
"""A numeric time below this many seconds (July 1979) counts from the series' own start."""

_END_S = 4_102_444_800
"""2100-01-01: no row is later."""

MOST = 1e15
"""No field of a row is more than this."""

_STAMP = r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?\s*(?:Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?$"
_ZONE = r"(?:Z|z|UTC|(?::\d{2}(?:[.,]\d+)?|T\d{2}:\d{2}|\d{2}:\d{2})\s*[+-]\d{2}(?::?\d{2})?)$"
_OFFSET = r":\d{2}(?:[.,]\d+)?\s*([+-])(\d{2}):?(\d{2})?$"
_USUAL = (
    ("%Y-%m-%dT%H:%M:%SZ", True),
    ("%Y-%m-%d %H:%M:%S%.f", False),
    ("%Y-%m-%dT%H:%M:%S%.f", False),
    ("%Y-%m-%dT%H:%M:%S%.fZ", True),
)
"""Forms that are tried on a whole block at once, and whether they name the zone UTC."""
_UNIX_STEPS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What a block of rows says. `frame`: at, model, requests, input, cached, output, cost; a row each."""

    frame: pl.DataFrame
    bad: list[tuple[int, str, str]]
    """Line, value, reason."""
    dated: bool
    undated: bool
    zoneless: int
    """Rows whose time names no zone."""


def read(texts: pl.DataFrame, layout: Layout, *, window_s: float = 0.0) -> Read:
    """Read a block: every column is text, with `RAW_LINE` beside. Rows that say nothing of usage are left out."""
    if layout.keep is not None:
        texts = texts.filter(pl.col(layout.keep[0]) == layout.keep[1])
    bad = _Bad(texts[RAW_LINE], texts.height)
    at, dated, undated, zoneless = _times(texts, layout, bad)
    numbers = {name: _numbers(texts, name, layout, bad) for name in _numeric(layout) if name in texts.columns}
    if layout.currency is not None and layout.currency in texts.columns:
        foreign = ~texts[layout.currency].str.to_lowercase().is_in(["usd", ""]).to_numpy()
        bad.add(foreign, texts[layout.currency], f"{layout.currency} is not usd")
    frame = _canonical(texts, layout, at, numbers, window_s, bad)
    good = ~bad.mask
    return Read(
        frame=frame.filter(pl.Series(good)) if bad.rows else frame,
        bad=bad.rows,
        dated=bool((dated & good).any()),
        undated=bool((undated & good).any()),
        zoneless=int((zoneless & good).sum()),
    )


class _Bad:
    """Rows found bad so far; each is told once, for its first fault."""

    def __init__(self, lines: pl.Series, height: int) -> None:
        self._lines = lines
        self.mask = np.zeros(height, dtype=bool)
        self.rows: list[tuple[int, str, str]] = []

    def add(self, wrong: Column, values: pl.Series, reason: str) -> None:
        fresh = np.flatnonzero(wrong & ~self.mask)
        if len(fresh):
            self.mask[fresh] = True
            for index in fresh.tolist():
                self.rows.append((int(self._lines[index]), str(values[index] or "")[:80], reason))


def _numeric(layout: Layout) -> tuple[str, ...]:
    singles = (layout.requests, layout.rate, layout.cost)
    return tuple(dict.fromkeys((*(name for name in singles if name), *layout.inputs, *layout.cached, *layout.outputs)))


def _numbers(texts: pl.DataFrame, name: str, layout: Layout, bad: _Bad) -> Column:
    """A column as numbers; NaN where it is empty. Bad: no number, below 0, too large, or missing where it may not be."""
    column = texts[name]
    values = column.cast(pl.Float64, strict=False).to_numpy()
    empty = column.is_null().to_numpy() | (column == "").fill_null(True).to_numpy()
    unread = np.isnan(values)
    if unread.any():
        bad.add(unread & ~empty, column, f"{name} is not a number")
        if name in layout.required:
            bad.add(empty, column, f"{name} is missing")
    sign = -1.0 if name == layout.cost and layout.cost_scale < 0 else 1.0
    with np.errstate(invalid="ignore"):
        wrong = (values * sign < 0) | (
            np.abs(values) > MOST * (1 / abs(layout.cost_scale) if name == layout.cost else 1)
        )
    if wrong.any():
        bad.add(wrong, column, f"{name} is not between 0 and {MOST:g}")
    result: Column = np.where(empty | unread, np.nan, values)
    return result


def _times(texts: pl.DataFrame, layout: Layout, bad: _Bad) -> tuple[Column, ...]:
    """Unix seconds, or seconds from the series' start; which rows are dated, which aren't, which name no zone."""
    column = texts[layout.time]
    values = column.cast(pl.Float64, strict=False).to_numpy().copy()
    numeric = np.isfinite(values)
    zoneless = np.zeros(len(values), dtype=bool)
    if layout.time_scale is not None:
        dated = np.zeros(len(values), dtype=bool)
        values[numeric] *= layout.time_scale
    else:
        for above, scale in _UNIX_STEPS:
            values = np.where(numeric & (values > above), values * scale, values)
        if layout.time == "day":
            values = np.where(numeric & (values < 1e5), values * 86_400, values)
        dated = numeric & (values >= EPOCH_AT_LEAST_S)
    if not numeric.all():
        seconds, without_zone = _stamps(column)
        written = ~numeric & np.isfinite(seconds)
        values = np.where(written, seconds, values)
        dated = dated | written
        zoneless = written & without_zone
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(values) | (values < 0) | (values >= _END_S)
    if wrong.any():
        bad.add(wrong, column, f"{layout.time} is not a time such as 2026-11-23T08:00:00Z or unix seconds")
    return values, dated, ~dated & ~wrong, zoneless


def _stamps(column: pl.Series) -> tuple[Column, Column]:
    """Written times as unix seconds, NaN for what is none; and which name no zone (those are taken as UTC)."""
    for form, zoned in _USUAL:
        if _fits(column, form):
            found = column.str.to_datetime(form, strict=False, time_unit="us")
            if found.null_count() == 0:
                seconds = (found.dt.epoch("us") / 1e6).to_numpy()
                return seconds, np.full(len(seconds), not zoned)
    return _any_stamps(column)


def _fits(column: pl.Series, form: str) -> bool:
    """True when the first value is of this form, so that it is worth trying."""
    first = column.head(1)
    return len(first) > 0 and first.str.to_datetime(form, strict=False, time_unit="us").null_count() == 0


def _any_stamps(column: pl.Series) -> tuple[Column, Column]:
    text = column.str.strip_chars()
    frame = pl.DataFrame({"text": text.replace("", None)})
    shaped = pl.when(pl.col("text").str.contains(_STAMP)).then(pl.col("text"))
    plain = shaped.str.slice(0, 19).str.replace("T", " ", literal=True)
    found = frame.select(
        long=plain.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us"),
        day=pl.when(shaped.str.len_bytes() <= 14).then(
            shaped.str.slice(0, 10).str.to_datetime("%Y-%m-%d", strict=False, time_unit="us")
        ),
        minute=pl.when(shaped.str.slice(16, 1) != ":").then(
            plain.str.slice(0, 16).str.to_datetime("%Y-%m-%d %H:%M", strict=False, time_unit="us")
        ),
        fraction=pl.concat_str(pl.lit("0."), shaped.str.slice(19).str.extract(r"^[.,](\d+)")).cast(
            pl.Float64, strict=False
        ),
        sign=shaped.str.extract(_OFFSET, 1),
        hours=shaped.str.extract(_OFFSET, 2).cast(pl.Float64),
        minutes=shaped.str.extract(_OFFSET, 3).cast(pl.Float64),
        zone=shaped.str.contains(_ZONE),
    )
    base = found.select(
        (pl.coalesce("long", "minute", "day").dt.epoch("us") / 1e6)
        + pl.col("fraction").fill_null(0.0)
        - pl.when(pl.col("sign") == "-").then(-1.0).otherwise(1.0)
        * (pl.col("hours").fill_null(0.0) * 3_600 + pl.col("minutes").fill_null(0.0) * 60)
    ).to_series()
    return base.cast(pl.Float64).fill_null(float("nan")).to_numpy(), ~found["zone"].fill_null(False).to_numpy()


def _canonical(
    texts: pl.DataFrame,
    layout: Layout,
    at: Column,
    numbers: dict[str, Column],
    window_s: float,
    bad: _Bad,
) -> pl.DataFrame:
    height = texts.height
    zero = np.zeros(height)

    def total(names: Sequence[str]) -> Column:
        found = zero.copy()
        for name in names:
            if name in numbers:
                found += np.nan_to_num(numbers[name])
        return found

    inputs, cached, outputs = total(layout.inputs), total(layout.cached), total(layout.outputs)
    if layout.cached_within:
        if layout.inputs and layout.inputs[0] in texts.columns:
            bad.add(cached > inputs, texts[layout.inputs[0]], "more input is cached than there is")
        inputs = np.maximum(inputs - cached, 0.0)
    if layout.rate is not None:
        requests = np.nan_to_num(numbers[layout.rate]) * window_s
    elif layout.requests is not None and layout.requests in numbers:
        requests = np.nan_to_num(numbers[layout.requests])
    else:
        requests = np.full(height, 1.0 if layout.row_is_request else 0.0)
    cost = numbers[layout.cost] * layout.cost_scale if layout.cost in numbers else np.full(height, np.nan)
    model = texts[layout.model].fill_null("") if layout.model in texts.columns else pl.Series([""] * height)
    return pl.DataFrame(
        {
            "at": at,
            "model": model,
            "requests": requests,
            "input": inputs,
            "cached": cached,
            "output": outputs,
            "cost": pl.Series(cost).fill_nan(None),
        }
    )
