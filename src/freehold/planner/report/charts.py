"""Plots as inline SVG: lines, bands, bars and a tornado. Pure text, no script, coloured by the page's style sheet.

A plot is for the eye; the page's tables have the figures. Every plot carries one sentence that says what it shows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, WIDE, HEIGHT = 500, 1000, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 12, 44


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined in order; `tone` names its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """The area between two heights: (x, low, high) for each x."""

    name: str
    points: Sequence[tuple[float, float, float]]
    tone: str


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar per (x, height), as wide as `width` in units of x. A bar's `title` is shown on hover."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: str
    width: float = 1.0
    titles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical (`x`) or horizontal (`y`) line with its name."""

    name: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of several layers over common axes. `summary` says in a sentence what is to be seen."""

    summary: str
    x_name: str
    y_name: str
    layers: Sequence[Line | Band | Bars]
    marks: Sequence[Mark] = ()
    x_tick: Callable[[float], str] = field(default=lambda value: plain(value))
    y_tick: Callable[[float], str] = field(default=lambda value: plain(value))
    from_zero: bool = True
    whole_x: bool = False
    """Ticks of x are whole numbers."""
    wide: bool = False
    """Over the whole page, not half of it."""


@dataclass(frozen=True, slots=True)
class Swing:
    """One bar of a tornado: what the result is with one assumption low, and high."""

    name: str
    low: float
    high: float
    low_said: str
    high_said: str


def plain(value: float) -> str:
    """A tick's number: few digits, thousands as k, millions as M."""
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit * 10:
            return f"{value / unit:,.4g}{letter}"
    return f"{value:,.4g}"


def percent(value: float) -> str:
    """A share as a tick."""
    return f"{value * 100:.4g} %"


def ticks(low: float, high: float, *, most: int = 6, whole: bool = False) -> list[float]:
    """At most `most` round numbers from `low` to `high`: steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)][: most + 1]


def draw(plot: Plot) -> str:
    """The plot as an `svg` element, its name given to those who can't see it; empty when there is nothing to draw."""
    corners = list(_extent(plot))
    if not corners:
        return ""
    low_x, high_x = _spread(min(x for x, _ in corners), max(x for x, _ in corners))
    low_y, high_y = min(y for _, y in corners), max(y for _, y in corners)
    if plot.from_zero:
        low_y, high_y = min(0.0, low_y), max(0.0, high_y)
    low_y, high_y = _spread(low_y, high_y)
    high_y += (high_y - low_y) * 0.06

    def at_x(x: float) -> float:
        return LEFT + (x - low_x) / (high_x - low_x) * (_right(plot) - LEFT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(plot, (low_x, high_x), (low_y, high_y), at_x, at_y)]
    for layer in plot.layers:
        parts.append(_layer(layer, at_x, at_y, max(0.0, low_y)))
    for mark in plot.marks:
        parts.append(_mark(mark, _right(plot), (low_x, high_x), (low_y, high_y), at_x, at_y))
    return (
        f'<svg class="plot" viewBox="0 0 {_right(plot) + RIGHT} {HEIGHT}" role="img" aria-label="{escape(plot.summary)}">'
        f"{''.join(parts)}</svg>"
    )


def key(plot: Plot) -> str:
    """The names of the plot's layers with their colours."""
    shown = "".join(
        f'<span class="{layer.tone}{" dashed" if isinstance(layer, Line) and layer.dashed else ""}">'
        f"{escape(layer.name)}</span>"
        for layer in plot.layers
        if layer.name
    )
    return f'<p class="key">{shown}</p>' if shown else ""


def tornado(swings: Sequence[Swing], base: float, *, summary: str, tick: Callable[[float], str] = plain) -> str:
    """Bars from each assumption's low to its high result around `base`, the widest first."""
    if not swings:
        return ""
    ordered = sorted(swings, key=lambda swing: -abs(swing.high - swing.low))
    values = [base, *(value for swing in ordered for value in (swing.low, swing.high))]
    low, high = _spread(min(values), max(values))
    names, row = 228, 30
    height = row * len(ordered) + 34

    def at(value: float) -> float:
        return names + (value - low) / (high - low) * (WIDTH - names - 24)

    parts = []
    for index, swing in enumerate(ordered):
        top = index * row + 6
        parts.append(f'<text class="name" x="{names - 8}" y="{top + 14:.0f}">{escape(swing.name)}</text>')
        for value, tone, said in ((swing.low, "less", swing.low_said), (swing.high, "more", swing.high_said)):
            left, right = sorted((at(base), at(value)))
            parts.append(
                f'<rect class="{tone}" x="{left:.1f}" y="{top}" width="{max(right - left, 1):.1f}" height="{row - 10}">'
                f"<title>{escape(f'{swing.name} {said}: {tick(value)}')}</title></rect>"
            )
    bottom = row * len(ordered) + 6
    parts.append(f'<line class="base" x1="{at(base):.1f}" x2="{at(base):.1f}" y1="0" y2="{bottom}"/>')
    for value in ticks(low, high, most=5):
        parts.append(f'<text class="tick" x="{at(value):.1f}" y="{bottom + 18}">{escape(tick(value))}</text>')
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(summary)}">'
        f"{''.join(parts)}</svg>"
    )


def _extent(plot: Plot) -> Sequence[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for layer in plot.layers:
        if isinstance(layer, Band):
            found += [(x, y) for x, *pair in layer.points for y in pair]
        elif isinstance(layer, Bars):
            half = layer.width / 2
            found += [(x + side, y) for x, y in layer.points for side in (-half, half)]
        else:
            found += layer.points
    return [(x, y) for x, y in found if math.isfinite(x) and math.isfinite(y)]


def _right(plot: Plot) -> int:
    """Where the x axis ends."""
    return (WIDE if plot.wide else WIDTH) - RIGHT


def _spread(low: float, high: float) -> tuple[float, float]:
    """The same bounds, or a little around a single value."""
    if high > low:
        return low, high
    around = abs(low) * 0.05 or 1.0
    return low - around, high + around


def _axes(
    plot: Plot,
    xs: tuple[float, float],
    ys: tuple[float, float],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
) -> str:
    floor = HEIGHT - BOTTOM
    parts = []
    for value in ticks(*ys, most=5):
        y = at_y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{_right(plot)}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="left" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(plot.y_tick(value))}</text>')
    for value in ticks(*xs, most=7, whole=plot.whole_x):
        parts.append(f'<text class="tick" x="{at_x(value):.1f}" y="{floor + 16}">{escape(plot.x_tick(value))}</text>')
    middle = (LEFT + _right(plot)) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 6}">{escape(plot.x_name)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(12 {(TOP + floor) / 2:.0f}) rotate(-90)">{escape(plot.y_name)}</text>'
    )
    return "".join(parts)


def _layer(
    layer: Line | Band | Bars, at_x: Callable[[float], float], at_y: Callable[[float], float], floor: float
) -> str:
    if isinstance(layer, Line):
        points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in layer.points)
        dashed = " dashed" if layer.dashed else ""
        return f'<polyline class="{layer.tone}{dashed}" points="{points}"/>'
    if isinstance(layer, Band):
        there = [f"{at_x(x):.1f},{at_y(high):.1f}" for x, _, high in layer.points]
        back = [f"{at_x(x):.1f},{at_y(low):.1f}" for x, low, _ in reversed(layer.points)]
        return f'<polygon class="{layer.tone}" points="{" ".join([*there, *back])}"/>'
    bars = []
    for index, (x, y) in enumerate(layer.points):
        left, right = at_x(x - layer.width * 0.42), at_x(x + layer.width * 0.42)
        top, bottom = sorted((at_y(y), at_y(floor)))
        said = f"<title>{escape(layer.titles[index])}</title>" if index < len(layer.titles) else ""
        bars.append(
            f'<rect class="{layer.tone}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" '
            f'height="{bottom - top:.1f}">{said}</rect>'
        )
    return "".join(bars)


def _mark(
    mark: Mark,
    end: int,
    xs: tuple[float, float],
    ys: tuple[float, float],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
) -> str:
    floor = HEIGHT - BOTTOM
    if mark.x is not None and xs[0] <= mark.x <= xs[1]:
        x = at_x(mark.x)
        right = x > end * 0.7
        return (
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>'
            f'<text class="said{" before" if right else ""}" x="{x + (-5 if right else 5):.1f}" y="{TOP + 12}">'
            f"{escape(mark.name)}</text>"
        )
    if mark.y is not None and ys[0] <= mark.y <= ys[1]:
        y = at_y(mark.y)
        return (
            f'<line class="mark" x1="{LEFT}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="said before" x="{end - 4}" y="{y - 5:.1f}">{escape(mark.name)}</text>'
        )
    return ""
