"""Scenario paths, and what a size costs on each: demand by block bootstrap, price by GBM with a jump to zero. Pure.

Sources: geometric Brownian motion, Black and Scholes (1973), with a jump to ruin at a constant rate, Merton, "Option
Pricing when Underlying Stock Returns Are Discontinuous" (1976), section on "immediate ruin"; the block bootstrap,
Künsch, "The Jackknife and the Bootstrap for General Stationary Observations" (1989), with blocks of whole weeks.

An amount of a path is split over days of the horizon as in `sizing`; on average over paths the costs are those of
`sizing.hold` and `sizing.rent`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freehold.planner import sizing
from freehold.planner.model import YEAR_DAYS, Assumptions, Floats, Usage

Indices = NDArray[np.int32]

BLOCK_DAYS = 7
ENOUGH_BLOCKS = 4
"""Fewer whole weeks than this, and days of the same weekday are drawn one by one."""

_ROWS = 256
"""Paths worked on at a time: 256 × 365 doubles stay in the processor's cache."""
THREADS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Scenarios:
    """Paths of demand, of the platform's life, and of DIEM's price at the end. Rows are paths, columns days 1 … T."""

    demand: Floats
    """At list prices of the day."""
    alive_days: Floats
    """Per path: the platform honours DIEM on days 1 … alive_days; ≥ T: all of them."""
    exit: Floats
    """Per path: what a dollar of DIEM bought today is worth at T + U, discounted, before the fee; 0 after the end."""
    marks: Floats
    """Per path and day of `mark_days`: the same on the way."""
    mark_days: tuple[int, ...]
    given: Assumptions
    over: sizing.Weights
    served: Floats
    """Per path: Σ β_d over the days alive."""
    served_demand: Floats
    """Per path: Σ β_d D_d over the days alive."""
    rent: Floats
    """Per path: Σ β_d q D_d."""

    @property
    def paths(self) -> int:
        return len(self.exit)

    def above(self, size: float) -> Floats:
        """Per path: Σ β_d (D_d − N)^+ over the days alive."""
        return self._sum_above(size)

    def hold(self, size: float) -> Floats:
        """Per path: the cost of holding `size` and paying by the call above it, and for all after the platform's end."""
        given = self.given
        above = self._sum_above(size)
        idle = size * self.served - self.served_demand + above
        if given.lease_depth is not None and given.lease > 0:
            depth = given.lease_depth
            beyond = self._sum_below(size - depth) if size > depth else 0.0
            idle = idle - beyond
        dead = self.rent - given.rent_ratio * self.served_demand
        bought = size * sizing.outlay_per_diem(given) - size * given.diem_price * (1 - given.fee) * self.exit
        result: Floats = bought + given.overflow_price * above - given.lease * idle + dead
        return result

    def first(self, paths: int) -> "Scenarios":
        """The first `paths` of them."""
        if paths >= self.paths:
            return self
        rows = {name: getattr(self, name)[:paths] for name in _PER_PATH}
        return replace(self, **rows)

    def clairvoyant(self, most: float) -> tuple[Floats, Floats]:
        """Per path: the least cost of any size up to `most` and the path's busiest day, and that size; all idle leased.

        A path's cost is straight between its demands, so the best size is where the days above it no longer bring
        what a DIEM loses on this path.
        """
        given, days = self.given, self.over.discount
        lost = sizing.outlay_per_diem(given) - given.diem_price * (1 - given.fee) * self.exit
        gain = given.overflow_price - given.lease
        enough = lost - given.lease * self.served

        def rows(part: slice) -> Floats:
            lived = np.arange(len(days)) < self.alive_days[part, None]
            demand = np.where(lived, self.demand[part], 0.0)
            order = np.argsort(demand, axis=1)[:, ::-1]
            ranked = np.take_along_axis(demand, order, axis=1)
            brought = gain * np.cumsum(np.where(lived, days, 0.0)[np.arange(len(order))[:, None], order], axis=1)
            first = (brought > enough[part, None]).argmax(axis=1)
            pays = brought[:, -1] > enough[part]
            sizes = np.where(pays, ranked[np.arange(len(order)), first], 0.0)
            sizes = np.where(enough[part] < 0, ranked[:, 0], sizes)
            sizes = np.minimum(sizes, most)
            above = np.maximum(demand - sizes[:, None], 0.0) @ days
            return np.stack([sizes, above])

        sizes, above = np.concatenate(_parallel(rows, self.paths), axis=1)
        idle = sizes * self.served - self.served_demand + above
        dead = self.rent - given.rent_ratio * self.served_demand
        return sizes * lost + given.overflow_price * above - given.lease * idle + dead, sizes

    def through_time(self, size: float) -> tuple[Floats, Floats]:
        """Per path and day of `mark_days`: what renting, and holding `size`, has cost so far.

        DIEM held then are counted at what they would fetch, after the fee.
        """
        given, days = self.given, self.over.discount
        cuts = np.array([0, *self.mark_days[:-1]])

        def rows(part: slice) -> Floats:
            lived = np.arange(len(days)) < self.alive_days[part, None]
            each = self.demand[part] * days
            rented = given.rent_ratio * np.add.reduceat(each, cuts, axis=1)
            above = np.maximum(each - size * days, 0.0)
            idle = size * days - each + above
            if given.lease_depth is not None:
                idle = np.minimum(idle, given.lease_depth * days)
            held = given.overflow_price * above - given.lease * idle
            paid = np.add.reduceat(np.where(lived, held, given.rent_ratio * each), cuts, axis=1)
            return np.stack([rented, paid])

        both = np.cumsum(np.concatenate(_parallel(rows, self.paths), axis=1), axis=2)
        bought = size * sizing.outlay_per_diem(given)
        return both[0], both[1] + bought - size * given.diem_price * (1 - given.fee) * self.marks

    def _sum_above(self, size: float) -> Floats:
        def rows(part: slice) -> Floats:
            return _excess(self.demand[part], size, self.over.discount, self.alive_days[part])

        return np.concatenate(_parallel(rows, self.paths))

    def _sum_below(self, size: float) -> Floats:
        """Per path: Σ β_d (N − D_d)^+ over the days alive."""
        return size * self.served - self.served_demand + self._sum_above(size)


_PER_PATH = ("demand", "alive_days", "exit", "marks", "served", "served_demand", "rent")


def draw(usage: Usage, given: Assumptions, *, list_prices: Floats | None = None) -> Scenarios:
    """`given.paths` paths from `given.seed`. `list_prices`: rows that demand is multiplied by, from `list_prices.paths`."""
    rng = np.random.default_rng(given.seed)
    over = sizing.weights(given)
    days, paths = given.horizon_days, given.paths
    picked = bootstrap(usage.days, days, paths, rng)
    lived = lifetimes(given.hazard, paths, rng)
    mark_days = tuple(sorted({*range(30, days, 30), days}))
    end = float(days + given.unbonding_days)
    price = prices(given, np.array([*mark_days, end]), paths, rng)
    scale = over.growth if list_prices is None else over.growth * list_prices
    demand = np.empty((paths, days))
    served, served_demand, rented = np.empty(paths), np.empty(paths), np.empty(paths)
    before = np.concatenate([[0.0], np.cumsum(over.discount)])
    alive = np.minimum(lived, days).astype(np.int64)

    def fill(part: slice) -> Floats:
        rows = demand[part]
        np.take(usage.demand, picked[part], out=rows)
        rows *= scale if scale.ndim == 1 else scale[part]
        rented[part] = given.rent_ratio * (rows @ over.discount)
        served_demand[part] = [row[:n] @ over.discount[:n] for row, n in zip(rows, alive[part], strict=True)]
        served[part] = before[alive[part]]
        return served[part]

    _parallel(fill, paths)
    worth = np.where(lived[:, None] >= [*mark_days, end], price, 0.0)
    worth *= sizing.discount(given.discount_rate, np.array([*mark_days, end]))
    return Scenarios(demand, lived, worth[:, -1], worth[:, :-1], mark_days, given, over, served, served_demand, rented)


def bootstrap(history_days: int, days: int, paths: int, rng: np.random.Generator) -> Indices:
    """Which day of the history stands for each day of each path; weekdays keep their place.

    The horizon begins on the day after the history's last. With four whole weeks or more, blocks of seven days are
    drawn; with two or more, days of the same weekday; with less, any day.
    """
    weeks = history_days // BLOCK_DAYS
    spans = -(-days // BLOCK_DAYS)
    picked: NDArray[Any]
    if weeks >= ENOUGH_BLOCKS:
        starts = history_days - BLOCK_DAYS * rng.integers(1, weeks + 1, size=(paths, spans, 1), dtype=np.int32)
        picked = (starts + np.arange(BLOCK_DAYS, dtype=np.int32)).reshape(paths, spans * BLOCK_DAYS)
    elif weeks >= 2:
        back = BLOCK_DAYS * rng.integers(1, weeks + 1, size=(paths, spans * BLOCK_DAYS), dtype=np.int32)
        picked = history_days - back + np.tile(np.arange(BLOCK_DAYS, dtype=np.int32), spans)
    else:
        picked = rng.integers(0, history_days, size=(paths, days), dtype=np.int32)
    return np.ascontiguousarray(picked[:, :days], dtype=np.int32)


def lifetimes(hazard: float, paths: int, rng: np.random.Generator) -> Floats:
    """Whole days that the platform honours DIEM: exponential at rate `hazard` a year, so that P(≥ d) = e^{−h·d/365}."""
    if hazard <= 0:
        return np.full(paths, np.inf)
    result: Floats = np.floor(rng.exponential(YEAR_DAYS / hazard, paths))
    return result


def prices(given: Assumptions, days: Floats, paths: int, rng: np.random.Generator) -> Floats:
    """P_d / P_0 while the platform lives, a row per path, a column per day of `days` (rising, from today 0 on).

    GBM whose mean reaches `resale` at T + U: resale^{d/(T+U)} · exp(σ√τ Z − σ²τ/2), τ = d/365, from independent
    increments; each normal is used with both signs, which makes the sample's mean steadier.
    """
    steps = np.diff(days, prepend=0.0) / YEAR_DAYS
    half = rng.standard_normal(((paths + 1) // 2, len(days)))
    normal = np.concatenate([half, -half])[:paths]
    rng.shuffle(normal)
    moved = np.cumsum(given.volatility * np.sqrt(steps) * normal - given.volatility**2 * steps / 2, axis=1)
    drift = given.resale ** (days / (given.horizon_days + given.unbonding_days))
    result: Floats = drift * np.exp(moved)
    return result


def _excess(rows: Floats, size: float, discount: Floats, alive_days: Floats) -> Floats:
    over = np.maximum(rows - size, 0.0)
    days = rows.shape[1]
    mortal = np.flatnonzero(alive_days < days)
    if len(mortal):
        over[mortal] *= np.arange(days) < alive_days[mortal, None]
    result: Floats = over @ discount
    return result


def _parts(paths: int) -> Iterator[slice]:
    for start in range(0, paths, _ROWS):
        yield slice(start, min(start + _ROWS, paths))


def _parallel(work: Callable[[slice], Floats], paths: int) -> list[Floats]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, _parts(paths)))
